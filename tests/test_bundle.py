"""The bundle: built, run without a network, cut off, packed, and taken in at home."""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from pipeline.bundle import archive, origin, pack
from pipeline.bundle.build import Options, build
from pipeline.bundle.intake import RUNS, experiment_id, take_in
from pipeline.bundle.wheels import platforms
from pipeline.config import experiment
from pipeline.errors import UserError
from pipeline.plan.build import build as plan_build
from pipeline.run.run_lock import only_run
from pipeline.run.scheduler import priorities
from tests.project import ROOT

FACTS = {
    "name": "table5", "settings": ["m=3"], "commit": "aaaa", "golden": "g1", "card": "H100",
    "torch": "2.11", "date": "2026-01-01", "params": {"m": 3, "seeds": [0], "about": "x"},
}  # fmt: skip
TABLE = """method,phase,seed,test_score,model,torch,device
dense,0,0,0.95,d,2.11,H100
imp,1,0,0.94,i,2.11,H100
sms,1,0,,s,,
"""


def packed(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    """Return an archive with ``files``."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def of_a_run(facts: object = FACTS, table: str = TABLE) -> bytes:
    """Return an archive such as a run packs it."""
    return packed({"run.json": json.dumps(facts).encode(), "reports/results.csv": table.encode()})


def results(folder: Path, name: str = "run", table: str = TABLE, **facts: object) -> Path:
    """Write an archive such as a run packs it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-results.tar.gz"
    path.write_bytes(of_a_run(FACTS | facts, table))
    return path


def test_a_newer_glibc_takes_the_wheels_of_every_older_one():
    tags = platforms("manylinux_2_28_x86_64")
    assert tags[0] == "manylinux_2_28_x86_64"
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64"} <= set(tags)
    assert "manylinux_2_29_x86_64" not in tags
    assert "manylinux2014_aarch64" not in platforms("manylinux_2_12_aarch64")
    assert platforms("macosx_14_0_arm64") == ["macosx_14_0_arm64"]
    with pytest.raises(UserError, match="manylinux_2_N_ARCH"):
        platforms("linux_x86_64")


def test_golden_numbers_are_told_apart_by_their_content(tmp_path):
    folder = tmp_path / origin.GOLDEN
    folder.mkdir(parents=True)
    hashes = set()
    for text in ("1.0", "1.0", "1.1"):
        (folder / "loop.json").write_text(text)
        hashes.add(origin.golden(tmp_path))
    assert len(hashes) == 2


def test_rows_are_taken_in_once_and_without_what_was_not_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("SMS_MLFLOW", "0")
    file = results(tmp_path / "back")
    assert "2 of 2 rows are new" in next(iter(take_in(tmp_path, [file])))
    before = (tmp_path / RUNS).read_bytes()
    assert "0 of 2 rows are new" in next(iter(take_in(tmp_path, [file])))
    assert (tmp_path / RUNS).read_bytes() == before
    other = results(tmp_path / "back", "other", commit="bbbb")
    list(take_in(tmp_path, [other]))
    rows = pd.read_csv(tmp_path / RUNS)
    assert list(rows["commit"]) == ["aaaa", "aaaa", "bbbb", "bbbb"]
    assert set(rows["golden"]) == {"g1"}
    assert set(rows["method"]) == {"dense", "imp"}  # sms was cut off
    assert (tmp_path / RUNS).read_bytes().startswith(before)


def test_seeds_and_methods_do_not_tell_experiments_apart_but_settings_do():
    values = {"m": 3, "seeds": [0], "methods": ["sms"], "pretrain": {"epochs": 200}}
    same = values | {"seeds": [1, 2], "methods": ["imp"], "evaluate": {"groups": False}}
    assert experiment_id(values) == experiment_id(same)
    assert experiment_id(values) != experiment_id(values | {"pretrain": {"epochs": 100}})


def damaged(content: bytes, at: int) -> bytes:
    """Return ``content`` with one bit of the byte ``at`` flipped."""
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


PLAIN = gzip.decompress(of_a_run())
WITHOUT_CARD = {key: value for key, value in FACTS.items() if key != "card"}
BAD = {
    "truncated": (of_a_run()[:100], "no complete archive"),
    "ends between two members": (gzip.compress(PLAIN[:1024]), "ends early"),
    "a flipped bit in a member": (damaged(of_a_run(), len(of_a_run()) // 2), "no complete archive"),
    "a wrong check sum": (damaged(of_a_run(), len(of_a_run()) - 8), "no complete archive"),
    "a flipped bit in the second header": (gzip.compress(damaged(PLAIN, 1124)), "ends early"),
    "empty": (b"", "no complete archive"),
    "mislabelled": (b"PK\x03\x04" + bytes(100), "no complete archive"),
    "not compressed": (PLAIN, "no complete archive"),
    "a bomb": (gzip.compress(bytes(archive.MOST + 1), 1), "unpacks to more than"),
    "outside": (packed({"../outside": b"x"}), "no complete archive"),
    "no run.json": (packed({"reports/results.csv": TABLE.encode()}), r"run\.json is missing"),
    "no table": (packed({"run.json": json.dumps(FACTS).encode()}), r"results\.csv is missing"),
    "run.json is text": (packed({"run.json": b"{"}), r"run\.json is not as a run writes it"),
    "run.json lacks a key": (of_a_run(WITHOUT_CARD), "card Field required"),
    "another type": (of_a_run(FACTS | {"params": [1]}), "params Input should be"),
    "a key that MLflow refuses": (of_a_run(FACTS | {"params": {"a,b": 1}}), "the key a,b"),
    "a table without columns": (of_a_run(table=""), "No columns to parse"),
    "a table without seeds": (of_a_run(table="method,phase,test_score\nimp,1,0.9\n"), "seed"),
    "a phase that is a word": (of_a_run(table=TABLE.replace("imp,1", "imp,x")), "results.csv"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_damaged_archive_is_refused_by_name_and_nothing_is_written(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("SMS_MLFLOW", "1")
    monkeypatch.setattr("pipeline.track.imported.log_imported", pytest.fail)
    content, reason = BAD[kind]
    file = tmp_path / "back" / "run-results.tar.gz"
    file.parent.mkdir()
    file.write_bytes(content)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with pytest.raises(UserError, match=reason) as error:
        list(take_in(tmp_path, [file]))
    assert str(error.value).startswith(str(file))
    assert re.search(r": (copy it again|copy the archive again|leave it out)$", str(error.value))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["back", file.name, "tmp"]


@pytest.mark.parametrize(
    ("kept", "name", "reason"),
    [
        ((0, 2), r"run-networks\.tar\.1", "is missing"),
        ((1, 2), r"run-networks\.tar\.0", "is missing"),
        ((0, 1), r"run-networks\.tar\.1, or one of the parts before it,", "is no complete archive"),
    ],
)
def test_a_part_of_the_networks_that_is_missing_is_named(tmp_path, monkeypatch, kept, name, reason):
    monkeypatch.setenv("SMS_MLFLOW", "1")
    monkeypatch.setattr("pipeline.track.imported.log_imported", pytest.fail)
    file = results(tmp_path / "back")
    whole = packed({"artifacts/s0-dense/model.safetensors": bytes(9000)}, "w")
    size = 5120  # the second part ends in the member
    for number in kept:
        part = file.with_name(f"run-networks.tar.{number}")
        part.write_bytes(whole[number * size : (number + 1) * size])
    with pytest.raises(UserError, match=f"{name} {reason}"):
        list(take_in(tmp_path, [file]))
    assert not (tmp_path / RUNS).exists()


def test_parts_of_several_packings_are_refused(tmp_path, monkeypatch):
    """As a run leaves them that is killed between two parts."""
    monkeypatch.setenv("SMS_MLFLOW", "0")
    file = results(tmp_path / "back")
    old, new = (
        packed({"artifacts/s0/model.safetensors": byte * 9000}, "w") for byte in (b"a", b"b")
    )
    file.with_name("run-networks.sha256").write_text(f"{hashlib.sha256(new).hexdigest()}\n")
    for number, whole in enumerate((new, old)):
        part = whole[number * 5120 : (number + 1) * 5120 if number == 0 else None]
        file.with_name(f"run-networks.tar.{number}").write_bytes(part)
    with pytest.raises(UserError, match=r"run-networks\.tar\.\* are no parts of one archive"):
        list(take_in(tmp_path, [file]))
    file.with_name("run-networks.tar.1").write_bytes(new[5120:])
    assert "2 of 2 rows" in next(iter(take_in(tmp_path, [file])))
    assert list(take_in(tmp_path, [file.with_name("run-networks.sha256")])) == []


def test_the_archive_of_networks_has_networks_only(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.track.imported.log_imported", pytest.fail)
    file = results(tmp_path / "back")
    for name in ("artifacts/s0-dense/MLmodel", "other/model.safetensors"):
        file.with_name("run-networks.tar.0").write_bytes(packed({name: b"x"}, "w"))
        with pytest.raises(UserError, match=f"has {name}, which is no network"):
            list(take_in(tmp_path, [file]))
    assert not (tmp_path / RUNS).exists()


def test_a_strange_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"must be NAME-results\.tar\.gz"):
        list(take_in(tmp_path, [tmp_path / "notes.txt"]))
    for name in ("run-results.tar.gz", "first.jsonl"):
        with pytest.raises(UserError, match=f"{name} does not exist: correct its name"):
            list(take_in(tmp_path, [tmp_path / name]))


def test_measurements_of_a_card_are_taken_in_once(tmp_path):
    file = tmp_path / "first.jsonl"
    file.write_text('{"measure": "peak", "card": "H100", "tflops": 790.0}\n')
    list(take_in(tmp_path, [file]))
    file.write_text(file.read_text() + '{"measure": "loop", "card": "H100", "jobs": 1}\n')
    file.write_text(file.read_text().replace("790.0", "790"))
    assert "1 of 2 measurements are new" in next(iter(take_in(tmp_path, [file])))
    assert len(pd.read_csv(tmp_path / "docs/data/card.csv")) == 2
    before = (tmp_path / "docs/data/card.csv").read_bytes()
    for text in ("{no JSON\n", "[1]\n", "3\n", '{"a\\nb": 1}\n', '{"a": "\\ud800"}\n', "[" * 99999):
        file.write_text(text)
        with pytest.raises(UserError, match=r"first\.jsonl: every line must be a JSON object"):
            list(take_in(tmp_path, [file]))
    assert (tmp_path / "docs/data/card.csv").read_bytes() == before


def test_networks_come_back_in_parts_and_only_as_many_as_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "PART", 30_000)
    (tmp_path / pack.RUN).parent.mkdir(parents=True)
    networks = []
    for name, size in (("soup", 40_000), ("dense", 90_000)):
        path = tmp_path / "artifacts" / name / "model.safetensors"
        path.parent.mkdir(parents=True)
        path.write_bytes(os.urandom(size))
        networks.append(path)
    out = tmp_path / "back"
    out.mkdir()
    assert pack._pack_networks(tmp_path, out, "run", networks, 1e6) == 2
    parts = sorted(out.glob("run-networks.tar.*"))
    assert [part.stat().st_size <= 30_000 for part in parts] == [True] * len(parts)
    with tarfile.open(fileobj=io.BytesIO(b"".join(p.read_bytes() for p in parts))) as archive:
        for path in networks:
            file = archive.extractfile(str(path.relative_to(tmp_path)))
            assert file is not None
            assert file.read() == path.read_bytes()
    digest = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    assert (out / "run-networks.sha256").read_text() == f"{digest}\n"
    assert pack._pack_networks(tmp_path, out, "run", networks, 60_000) == 1
    assert len(list(out.glob("run-networks.tar.*"))) < len(parts)  # no part of the older archive
    assert pack._pack_networks(tmp_path, out, "run", networks, 0) == 0
    assert not list(out.glob("run-networks.tar.*"))


def test_trainings_of_table_5_end_phase_by_phase(tmp_path):
    (tmp_path / "params.yaml").write_text(
        "recipe: cifar10_resnet18\nseed: 0\nm: 3\nmethods: [sms, imp, imp_mx]\nmerge: [uniform]\n"
        "data: {name: image_folder, path: data/cifar10}\nevaluate: {corruptions: none}\n"
        "pretrain: {precision: bf16}\n"
    )
    plan = plan_build(experiment.load(tmp_path / "params.yaml"))
    inputs = {name: node.inputs for name, node in plan.nodes.items()}
    readers: dict[str, list[str]] = {name: [] for name in inputs}
    for name, reads in inputs.items():
        for read in reads:
            readers[read].append(name)
    places = priorities(inputs, readers)
    done: list[str] = []
    while len(done) < len(inputs):  # one slot
        ready = [n for n in inputs if n not in done and set(inputs[n]) <= set(done)]
        done.append(min(ready, key=places.__getitem__))
    order = [plan.nodes[n] for n in done if plan.nodes[n].script == "retrain"]
    phases = [int(node.labels["phase"]) for node in order]
    assert phases == sorted(phases)
    assert len(phases) == 3 * 5 - 1  # phase 1 of IMP is a candidate of SMS


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle with one wheel of its own and the digits' few settings."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "wheels").mkdir()
    with zipfile.ZipFile(folder / "wheels" / "onlyhere-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("onlyhere.py", "value = 7\n")
        info = "onlyhere-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: onlyhere\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    sizes = build(ROOT, folder / "out", Options("3.11", "any", wheels=folder / "wheels"))
    assert sum(sizes.values()) < 10
    return folder / "out"


def test_a_folder_without_wheels_is_refused(tmp_path):
    for wheels in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"--wheels .* has no \.whl files"):
            build(ROOT, tmp_path / "out", Options("3.11", "any", wheels=wheels))
    assert not list(tmp_path.iterdir())


def test_a_bundle_with_results_is_not_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bundle.json").write_text("{}")
    file = results(tmp_path / "out" / "back")
    with pytest.raises(UserError, match="out/back has the results of a run"):
        build(ROOT, tmp_path / "out", Options("3.11", "any"))
    assert file.exists()


def make(folder: Path, goal: str) -> int:
    """Run ``make`` in a folder that has the Makefile alone; return the exit status."""
    shutil.copy(ROOT / "Makefile", folder)
    command = ["make", goal]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode


def test_cleaning_keeps_results_of_bundles(tmp_path):
    (tmp_path / "dist" / "site").mkdir(parents=True)
    (tmp_path / "dist" / "site" / "index.html").touch()
    (tmp_path / "dist" / "bundle" / "wheels").mkdir(parents=True)
    (tmp_path / "dist" / "bundle" / "run").touch()
    file = results(tmp_path / "dist" / "bundle" / "back")
    assert make(tmp_path, "clean") == 0
    assert [path for path in tmp_path.glob("dist/**/*") if path.is_file()] == [file]
    assert not (tmp_path / "dist" / "bundle" / "wheels").exists()
    shutil.rmtree(file.parent)
    assert make(tmp_path, "clean") == 0
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize("fails", [True, False])
def test_constraints_stay_where_pip_fails(tmp_path, fails):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    pip, constraints = tmp_path / ".venv" / "bin" / "pip", tmp_path / "constraints.txt"
    (tmp_path / "pyproject.toml").touch()
    constraints.write_text("# by make constraints\nnumpy==1.0\n")
    for stamp in ("installed", "installed-extras"):
        (tmp_path / ".venv" / stamp).touch()
    lines = "numpy==2.0\ntriton==3.0\ntorch==2.0+cpu\nmine @ file:///here\n"
    pip.write_text(f"#!/bin/sh\nprintf '{lines}'\nexit {int(fails)}\n")
    pip.chmod(0o755)
    assert (make(tmp_path, "constraints") == 0) is not fails
    new = "numpy==1.0" if fails else "numpy==2.0\ntorch==2.0"
    assert constraints.read_text() == f"# by make constraints\n{new}\n"


def offline(bundle: Path, *words: str) -> str:
    """Run the bundle in a network namespace of its own, which has no network."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed: it takes the network away")
    tried = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("unshare -n needs root: it takes the network away")
    left = ("DVC_", "SMS_", "MLFLOW_", "PYTHONPATH", "PYTEST")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(left)}
    done = subprocess.run(
        ["unshare", "-n", sys.executable, str(bundle / "run"), *words],
        cwd=bundle.parent, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_of_two_runs_in_a_bundle_the_second_is_refused_and_changes_nothing(bundle):
    params = bundle / "project" / "params.yaml"
    before = params.read_bytes()
    with only_run(bundle / ".run.lock", bundle):
        done = subprocess.run(
            [sys.executable, str(bundle / "run"), "-S", "m=2"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"error: another run is at work in {bundle} (process {os.getpid()})" in done.stderr
    assert params.read_bytes() == before


TINY = ("m=2", "methods=[sms]", "merge=[uniform]", "pretrain.epochs=1", "retrain.epochs=1",
        "pretrain.batch_size=256", "evaluate.corruptions=none")  # fmt: skip


@pytest.mark.slow
def test_a_bundle_runs_without_network_and_git_and_a_cut_keeps_what_ended(
    bundle, tmp_path, monkeypatch
):
    assert offline(bundle, "--python", "-c", "import onlyhere; print(onlyhere.value)").endswith(
        "7\n"
    )
    settings = [word for setting in TINY for word in ("-S", setting)]
    said = offline(bundle, "--name", "whole", *settings, "-S", "phases=1")
    assert "8 of 9 stages" in said or "9 of 9 stages" in said
    back = bundle / "back"
    with tarfile.open(back / "whole-results.tar.gz") as archive:
        names = archive.getnames()
        archive.extractall(tmp_path, filter="data")
    assert {"run.json", "stages/dvc.lock", "reports/results.md"} <= set(names)
    assert not [name for name in names if name.endswith(".safetensors")]
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["golden"] == origin.golden(ROOT)
    assert facts["params"]["phases"] == 1
    table = pd.read_csv(tmp_path / "reports/results.csv")
    assert table["test_score"].notna().all()
    with tarfile.open(back / "whole-networks.tar.0") as archive:
        assert "artifacts/s0-dense/model.safetensors" in archive.getnames()
    monkeypatch.setenv("SMS_MLFLOW", "0")
    (said,) = take_in(tmp_path, [back / "whole-results.tar.gz"])
    assert f"{len(table)} of {len(table)} rows are new" in said

    # Other settings, cut off at once: nothing of the first run may pass for a result of theirs.
    said = offline(bundle, "--name", "cut", *settings, "-S", "phases=2", "--minutes", "0.1")
    assert "stopped after 0.1 minutes" in said
    with tarfile.open(back / "cut-results.tar.gz") as archive:
        archive.extractall(tmp_path / "cut", filter="data")
    table = pd.read_csv(tmp_path / "cut/reports/results.csv")
    assert table[table["phase"] == 2]["test_score"].isna().all()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own
def test_an_imported_run_stands_in_mlflow_once_with_its_networks(tmp_path, monkeypatch):
    monkeypatch.delenv("SMS_MLFLOW", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    file = results(tmp_path / "back")
    model = tmp_path / "artifacts/s0-dense/model.safetensors"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"weights")
    with tarfile.open(tmp_path / "back/run-networks.tar.0", "w") as archive:
        archive.add(model, "artifacts/s0-dense/model.safetensors")
    code = "import sys; from pipeline.bundle.intake import take_in; from pathlib import Path\n"
    code += "for _ in range(2): print(*take_in(Path.cwd(), [Path(sys.argv[1])]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, second = done.stdout.splitlines()
    assert "a run in MLflow" in first
    assert "MLflow has it" in second
    from mlflow import MlflowClient

    client = MlflowClient()
    experiments = [e.experiment_id for e in client.search_experiments()]
    parents = client.search_runs(experiments, "tags.imported = 'true'")
    assert len(parents) == 1
    tags = parents[0].data.tags
    assert tags["mlflow.source.git.commit"] == "aaaa"
    assert (tags["card"], tags["golden"]) == ("H100", "g1")
    assert parents[0].data.params["m"] == "3"
    assert parents[0].data.metrics["test_score/imp"] == 0.94
    folder = client.download_artifacts(parents[0].info.run_id, "networks", str(tmp_path))
    assert Path(folder, "s0-dense/model.safetensors").read_bytes() == b"weights"
