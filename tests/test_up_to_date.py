"""Only artifacts that are today's count, and a finished run is known by what it was made from."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from dvc.config import Config
from dvc.repo import Repo

from pipeline import repro
from pipeline.errors import UserError
from pipeline.plan.plan import Plan, Stage
from pipeline.report import fingerprint
from pipeline.report.publish import best_soup, write_report
from pipeline.repro import _last_line
from pipeline.run.driver import execute
from pipeline.run.dvc_graph import up_to_date
from pipeline.run.interfaces import Summary
from tests.test_report import made, params, put, rows

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's own
STAGES = {"data": [], "dense": ["data"], "pruned": ["dense"], "apart": ["data"]}


def graph(root: Path, **extra: str) -> None:
    """Write stages that copy what they read, with an ``extra`` word in a stage's command."""
    stages = {}
    for name, reads in STAGES.items():
        sources = " ".join([f"{name}.py", *(f"artifacts/{read}/value" for read in reads)])
        stages[name] = {
            "cmd": f"mkdir -p artifacts/{name} && (cat {sources}; echo {name} {extra.get(name, '')}"
            f") > artifacts/{name}/value",
            "wdir": "..",
            "deps": [f"{name}.py", *(f"artifacts/{read}" for read in reads)],
            "outs": [f"artifacts/{name}"],
        }
    (root / "stages" / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))


@pytest.fixture(autouse=True, scope="module")
def _no_settings_of_the_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for key in ("DVC_STAGE", "DVC_ROOT", "DVC_EXP_NAME", "SMS_MLFLOW", "MLFLOW_TRACKING_URI"):
            patch.delenv(key, raising=False)
        patch.setenv("DVC_NO_ANALYTICS", "1")
        patch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("site")))
        yield


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository whose four stages have been run."""
    root = tmp_path_factory.mktemp("ran")
    (root / "stages").mkdir()
    for name in STAGES:
        (root / f"{name}.py").write_text(name)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    Repo.init(str(root)).close()
    graph(root)
    assert set(execute(root, 2).ran) == STAGES.keys()
    return root


@pytest.fixture
def root(ran: Path, tmp_path: Path) -> Path:
    """Return a copy of it."""
    return Path(shutil.copytree(ran, tmp_path / "project"))


def test_all_that_the_lock_file_has_is_current(root: Path):
    lock = yaml.safe_load((root / "stages" / "dvc.lock").read_text())["stages"]
    assert up_to_date(root) == {name: stage["outs"][0]["md5"] for name, stage in lock.items()}


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda root: graph(root, dense="other"), {"data", "apart"}),
        (lambda root: (root / "dense.py").write_text("edited"), {"data", "apart"}),
        (lambda root: (root / "artifacts/dense/value").write_text("edited"), {"data", "apart"}),
        (lambda root: (root / "artifacts/pruned/value").unlink(), {"data", "dense", "apart"}),
        (lambda root: (root / "artifacts/data/more").write_text(""), set()),
        (lambda root: (root / "stages/dvc.lock").unlink(), set()),
    ],
)
def test_what_a_change_reaches_is_not_current_until_it_is_undone(
    root: Path, change: Callable[[Path], object], left: set[str]
):
    """As ``dvc status`` would say of each stage, and then of all that is made from it."""
    change(root)
    assert up_to_date(root).keys() == left


def test_a_report_leaves_out_what_is_not_current(tmp_path: Path):
    """Artifacts of another recipe lie there; none of them is printed under today's parameters."""
    plan = made(tmp_path / "artifacts", params(phases=1))
    hashes = {name: f"{name}.dir" for name in plan.nodes}
    assert write_report(plan, tmp_path, hashes) == len(plan.rows)
    stale = {name for name in plan.nodes if "sms_uniform" in name}
    there = write_report(plan, tmp_path, {k: v for k, v in hashes.items() if k not in stale})
    assert there == sum(row.evaluate not in stale for row in plan.rows) < len(plan.rows)
    scores = {row["method"]: row["test_score"] for row in rows(tmp_path / "reports/results.csv")}
    assert scores["sms_uniform"] == ""
    assert scores["imp"] != ""
    missing = (tmp_path / "reports/results.md").read_text().split("## Missing")[1]
    assert all(f"`{name}`" in missing for name in stale)
    assert write_report(plan, tmp_path, {}) == 0
    assert not any(row["test_score"] for row in rows(tmp_path / "reports/results.csv"))
    assert _last_line(plan, 0).startswith(f"0 of {len(plan.rows)} results in reports/results.md")
    assert ".dvc/tmp/sms/logs" in _last_line(plan, 0)
    assert _last_line(plan, len(plan.rows)) == f"{len(plan.rows)} results in reports/results.md\n"


@pytest.mark.parametrize("method", ["gmp_sms", "dpf_sms", "rigl_sms", "bimp_sms", "sms", "sms_swa"])
def test_every_soup_can_be_registered(tmp_path: Path, method: str):
    plan = made(tmp_path / "artifacts", params(methods=["imp", "gmp", "imp_reprune", method]))
    for row in plan.rows:
        put(tmp_path / "artifacts" / row.model, "metrics.json", {"val_accuracy": 0.9})
    soups = {row.method for row in plan.rows if row.is_soup}
    assert soups == ({"sms_uniform", "sms_greedy"} if method == "sms" else {method})
    found = best_soup(plan, tmp_path, dict.fromkeys(plan.nodes, "hash"))
    assert found is not None
    assert found[0].method in soups
    assert found[0].phase == plan.params.phases
    others = {name for name in plan.nodes if name not in {row.model for row in plan.rows}}
    assert best_soup(plan, tmp_path, dict.fromkeys(others, "hash")) is None


@pytest.fixture
def finished(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Plan]:
    """Return a checkout with a report that has been written and logged, and its plan."""
    monkeypatch.setattr(fingerprint, "dependencies", lambda node: [f"{node.name}.py"])
    nodes = {name: Stage(name, name, {}, ()) for name in STAGES}
    own = SimpleNamespace(model_dump=lambda **_: {"m": 3})
    plan = Plan(own, nodes)  # type: ignore[arg-type]
    (root / "reports").mkdir()
    (root / "reports" / "results.md").write_text("# Results")
    fingerprint.remember(root, plan)
    return root, plan


def test_a_finished_run_is_known_again(finished: tuple[Path, Plan]):
    root, plan = finished
    assert fingerprint.take(root, plan) == fingerprint.read(root)
    fingerprint.forget(root)
    assert fingerprint.read(root) is None
    (root / fingerprint.STORE).write_text(json.dumps({"half": 1}))
    assert fingerprint.read(root) is None


@pytest.mark.parametrize("file", ["reports/results.md", "stages/dvc.lock", "stages/dvc.yaml"])
def test_an_edit_of_what_a_report_is_made_from_is_noticed(finished: tuple[Path, Plan], file: str):
    root, plan = finished
    before, text = fingerprint.read(root), (root / file).read_text()
    assert before is not None
    (root / file).write_text(f"{text} ")
    assert fingerprint.take(root, plan).report != before.report
    (root / file).unlink()
    assert fingerprint.take(root, plan).report != before.report
    (root / file).write_text(text)
    assert fingerprint.take(root, plan) == before


@pytest.mark.parametrize("file", ["dense.py", "artifacts/dense/value"])
def test_an_edit_of_the_same_size_has_the_graph_checked_but_writes_no_report(
    finished: tuple[Path, Plan], file: str
):
    root, plan = finished
    before = fingerprint.read(root)
    assert before is not None
    (root / file).chmod(0o644)  # DVC protects what it may link to
    (root / file).write_text((root / file).read_text()[::-1])
    os.utime(root / file, ns=(1, 1))
    now = fingerprint.take(root, plan)
    assert (now.report, now.files != before.files) == (before.report, True)


@pytest.mark.parametrize("level", ["local", "repo", "global", "system"])
def test_a_cache_elsewhere_that_is_gone_is_noticed(
    finished: tuple[Path, Plan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, level: str
):
    """Its place is found as `dvc cache dir` finds it."""
    root, plan = finished
    for name in ("global", "system"):
        monkeypatch.setenv(f"DVC_{name.upper()}_CONFIG_DIR", str(tmp_path / name))
    (root / ".dvc" / "cache").rename(tmp_path / "cache")
    with Config(str(root / ".dvc")).edit(level) as config:  # repo: a path relative to .dvc
        place = tmp_path / "cache"
        config["cache"]["dir"] = os.path.relpath(place) if level == "repo" else str(place)
    fingerprint.remember(root, plan)
    assert fingerprint.take(root, plan) == fingerprint.read(root)
    (tmp_path / "cache").rename(tmp_path / "away")
    assert fingerprint.take(root, plan) != fingerprint.read(root)
    (tmp_path / "away").rename(tmp_path / "cache")
    assert fingerprint.take(root, plan) == fingerprint.read(root)


def test_a_damaged_configuration_of_dvc_is_one_sentence(finished: tuple[Path, Plan]):
    root, plan = finished
    (root / ".dvc" / "config.local").write_text("[cache\n")
    with pytest.raises(UserError, match=r"config\.local is no configuration of DVC .* correct it"):
        fingerprint.take(root, plan)


def test_a_link_to_nothing_is_left_to_the_stage_that_reads_it(finished: tuple[Path, Plan]):
    root, plan = finished
    (root / "artifacts" / "dense" / "gone").symlink_to("nothing")
    assert fingerprint.take(root, plan) != fingerprint.read(root)


def test_another_store_of_runs_or_experiment_is_another_run(
    finished: tuple[Path, Plan], monkeypatch: pytest.MonkeyPatch
):
    root, plan = finished
    for name in ("SMS_MLFLOW", "MLFLOW_TRACKING_URI", "DVC_EXP_NAME"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "0")
            assert fingerprint.take(root, plan) != fingerprint.read(root)
    (root / "mlflow.db").write_text("")
    assert fingerprint.take(root, plan) != fingerprint.read(root)


@pytest.mark.parametrize(
    ("edited", "current", "known"),
    [(None, True, True), ("dense.py", True, False), (None, False, False)],
    ids=["undisturbed", "edited", "stale"],
)
def test_a_run_during_which_an_input_was_edited_is_not_known_again(
    finished: tuple[Path, Plan],
    monkeypatch: pytest.MonkeyPatch,
    edited: str | None,
    current: bool,
    known: bool,
):
    """The stage had read the file before: its result is stale, so the next run has work to do."""
    root, plan = finished
    plan.params.network = SimpleNamespace(name="resnet8")  # type: ignore[assignment]
    plan.params.data = SimpleNamespace(size=8)  # type: ignore[assignment]

    def executed(*_: object, **__: object) -> Summary:
        if edited:
            (root / edited).write_text("later")
        return Summary(("dense",), (), (), ())

    hashes = dict.fromkeys(plan.nodes, "hash") if current else {}
    monkeypatch.setenv("SMS_MLFLOW", "0")
    monkeypatch.setattr("pipeline.run.driver.execute", executed)
    monkeypatch.setattr("pipeline.run.dvc_graph.up_to_date", lambda _: hashes)
    monkeypatch.setattr("pipeline.repro._publish", lambda *_: 0)
    last, now = fingerprint.read(root), fingerprint.take(root, plan)
    assert repro._run(plan, root, last, now) == 0
    assert (fingerprint.read(root) == fingerprint.take(root, plan)) == known
