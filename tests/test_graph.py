"""The whole graph under real DVC and git, on a tiny recipe: what is run again, and what never."""

import json
import re
import shutil
import sys
import time

import pytest
import torch
import yaml
from mlflow import MlflowClient

from pipeline.run.provenance import provenance
from tests.project import Project, ran, trained, write_example

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Project, str]:
    """Return a committed project after its first ``dvc repro`` with m = 2, and what it printed."""
    project = Project.create(tmp_path_factory.mktemp("graph") / "project")
    project.edit("params.yaml", "m: 3", "m: 2")
    output = project.run("dvc", "repro")
    project.commit()
    return project, output


@pytest.fixture
def project(first, tmp_path) -> Project:
    return first[0].copy(tmp_path / "project")


def stages(project: Project) -> dict:
    return yaml.safe_load((project.root / "stages" / "dvc.yaml").read_text())["stages"]


def lock(project: Project) -> dict:
    return yaml.safe_load((project.root / "stages" / "dvc.lock").read_text())


def test_the_first_run_runs_every_stage_once_and_fills_the_report(first):
    project, output = first
    assert ran(output) == set(stages(project))
    results = (project.root / "reports" / "results.csv").read_text().splitlines()
    assert sum(line.startswith("sms_uniform,") for line in results) == 2
    metrics = json.loads((project.root / "reports" / "metrics.json").read_text())
    assert 0 <= metrics["sms_uniform"]["test_score"] <= 1


def test_a_second_run_runs_nothing(project):
    assert ran(project.run("dvc", "repro")) == set()


def test_a_hand_edit_of_m_trains_only_what_it_adds_and_back_trains_nothing(project):
    project.edit("params.yaml", "m: 2", "m: 3")
    more = trained(project.run("dvc", "repro"))
    second = {f"s0-sms_uniform-p2-c{candidate}" for candidate in range(3)}
    assert more == {"s0-p1-c2"} | second
    project.edit("params.yaml", "m: 3", "m: 2")
    assert ran(project.run("dvc", "repro")) == set()


def test_experiments_with_m_3_and_back(project):
    output = project.run("dvc", "exp", "run", "-S", "m=3")
    second = {f"s0-sms_uniform-p2-c{candidate}" for candidate in range(3)}
    assert trained(output) == {"s0-p1-c2"} | second
    assert ran(project.run("dvc", "exp", "run", "-S", "m=2")) == set()


def test_queued_experiments_run_and_can_be_applied(project):
    write_example(project.root.parent / "my own code")
    own = "network.name=../my own code/net.py"
    project.run("dvc", "exp", "run", "--queue", "-S", "m=2")
    project.run("dvc", "exp", "run", "--queue", "-S", "m=3", "-S", own)
    project.run("dvc", "queue", "start", SMS_MLFLOW="1")
    _wait_for_queue(project)
    shown = json.loads(project.run("dvc", "exp", "show", "--json"))
    found = {}
    for experiment in _experiments(shown):
        assert experiment["data"] is not None, experiment
        m = experiment["data"]["params"]["params.yaml"]["data"]["m"]
        found[m] = experiment["name"]
        metrics = experiment["data"]["metrics"]["reports/metrics.json"]["data"]
        assert 0 <= metrics["sms_uniform"]["test_score"] <= 1
    assert set(found) == {2, 3}
    table = project.run(sys.executable, "-m", "pipeline", "experiments", "--sort-by", "m")
    for m, name in found.items():
        (line,) = [line for line in table.splitlines() if line.startswith(f" {name} ")]
        assert re.search(rf"success +{m} .*\d\*? +\d+ +\d+ *$", line), "m, scores, ran and cached"
    project.run("dvc", "exp", "apply", found[3])
    assert "../my own code/blocks.py" in stages(project)["s0-p1-c2"]["deps"]
    assert provenance(project.root).keys() == stages(project).keys()
    assert yaml.safe_load((project.root / "params.yaml").read_text())["m"] == 3
    assert ran(project.run("dvc", "repro")) == set(), "the queue shares the cache"


def test_a_fresh_clone_pulls_and_trains_nothing(project, tmp_path):
    remote = tmp_path / "remote"
    project.run("dvc", "remote", "add", "--default", "folder", str(remote))
    project.run("dvc", "push", "--all-commits")
    project.commit()
    project.run("git", "clone", "-q", str(project.root), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.run("dvc", "pull")
    assert ran(clone.run("dvc", "repro")) == set()
    assert lock(clone) == lock(project)
    records = provenance(clone.root)
    assert records == provenance(project.root)
    assert records.keys() == stages(clone).keys()
    assert {record["torch"] for record in records.values()} == {torch.__version__}
    assert "Computed with torch" in (clone.root / "reports" / "results.md").read_text()


def test_changed_report_code_runs_no_stage(project):
    _append(project, "pipeline/report/write.py")
    assert ran(project.run("dvc", "repro")) == set()


def test_a_changed_training_line_runs_what_depends_on_it_and_early_cut_off_spares_the_rest(project):
    _append(project, "pipeline/train/loop.py")
    again = ran(project.run("dvc", "repro"))
    assert again == trained_stages(project), "a comment changes no bit, so nothing else is run"
    project.edit("stages/retrain.py", "learning_rate=max(rates)", "learning_rate=rates[0]")
    again = ran(project.run("dvc", "repro"))
    retrained = {name for name in trained_stages(project) if not name.endswith("dense")}
    assert retrained <= again
    assert not {"data", "s0-dense", "s0-dense-eval", "s0-p1-prune"} & again


def test_plain_serial_dvc_gives_the_identical_lock(project):
    parallel = lock(project)
    (project.root / "stages" / "dvc.lock").unlink()
    shutil.rmtree(project.root / "artifacts")
    shutil.rmtree(project.root / ".dvc" / "cache")
    project.run("dvc", "repro", "stages/dvc.yaml")
    assert lock(project) == parallel


@pytest.mark.filterwarnings("default")  # MLflow's own
def test_a_run_that_fails_registers_no_soup_of_an_earlier_one(project):
    project.edit(
        "params.yaml",
        "batch_size: null, learning_rate: null",
        "batch_size: null, learning_rate: 1.0e+20",
    )
    output = project.run("dvc", "repro", ok=False, SMS_MLFLOW="1")
    assert "s0-dense failed" in output
    client = MlflowClient(f"sqlite:///{project.root}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'sparse-model-soups'")
    (run,) = client.search_runs([experiment.experiment_id], "tags.kind = 'graph'")
    assert "soup" not in run.data.tags
    assert client.search_model_versions() == []


def test_a_typo_is_refused_before_anything_runs(project):
    project.edit("params.yaml", "m: 2", "m: 0")
    before = lock(project)
    output = project.run("dvc", "repro", ok=False)
    assert "error: params.yaml: m is 0, but must be in [1, 100]" in output
    assert "Traceback" not in output
    assert lock(project) == before
    assert (project.root / "reports" / "results.csv").exists()


def trained_stages(project: Project) -> set[str]:
    return {
        name
        for name, stage in stages(project).items()
        if stage["cmd"].split()[1] in {"pretrain", "retrain"}
    }


def _append(project: Project, file: str) -> None:
    with (project.root / file).open("a") as source:
        source.write("# a comment more\n")


def _experiments(shown: list) -> list[dict]:
    """Return the experiments under every baseline of ``dvc exp show --json``."""
    return [
        revision
        for baseline in shown
        for experiment in baseline["experiments"] or []
        for revision in experiment["revs"]
    ]


def _wait_for_queue(project: Project) -> None:
    """Wait until the two experiments have left a commit each; DVC is asked now and then only."""
    for second in range(480):
        made = project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps")
        done = [ref for ref in made.splitlines() if re.match(r"refs/exps/[0-9a-f]{2}/", ref)]
        if len(done) == 2 or second % 20 == 19:
            status = project.run("dvc", "queue", "status")
            if "Failed" in status:
                raise AssertionError(status)
            if "Running" not in status and "Queued" not in status:
                return
        time.sleep(1)
    raise AssertionError(status)
