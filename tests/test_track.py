"""Tracking against a real MLflow on SQLite: what a person finds there after a run."""

import os
import queue
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.data.base import Dataset, Split
from pipeline.data.base import save as save_data
from pipeline.errors import UserError
from pipeline.models.build import build
from pipeline.storage.atomic_files import write_json
from pipeline.storage.checkpoint import Checkpoint, save
from pipeline.track import registration, summary, writer
from pipeline.track.registration import Registration
from pipeline.track.tracker import Tracker

# MLflow and the libraries that it loads warn of their own future.
pytestmark = pytest.mark.filterwarnings("default")
slow = pytest.mark.slow
PACKAGE = Path(registration.__file__).parents[1]
PARAMS = {"recipe": "toy", "m": 2, "methods": ["imp", "sms"], "retrain": {"epochs": 3}}


@dataclass
class Node:
    name: str
    labels: dict[str, str]
    arguments: dict[str, object] = field(default_factory=dict)


NODES = {
    node.name: node
    for node in [
        Node("dense", {"kind": "pretrain", "seed": "0"}, {"epochs": 2, "milestones": [0.5, 0.7]}),
        Node("p1-prune", {"kind": "prune", "phase": "1", "methods": "imp, sms"}),
        Node("p1-c0", {"kind": "retrain", "phase": "1", "candidate": "0"}, {"epochs": 3}),
        Node("p1-c1", {"kind": "retrain", "phase": "1", "candidate": "1"}, {"epochs": 3}),
        Node("sms-p1", {"kind": "merge", "phase": "1"}),
    ]
}
ROWS = [
    {"method": "sms", "phase": 1, "seed": 0, "sparsity": 0.9, "test_score": 0.7, "model": "a"},
    {"method": "sms", "phase": 1, "seed": 1, "sparsity": 0.9, "test_score": 0.9, "model": "b"},
    {"method": "imp", "phase": 1, "seed": 0, "sparsity": 0.9, "test_score": 0.6, "note": None},
]


@pytest.fixture(autouse=True)
def _own_database(monkeypatch):
    for name in ("SMS_MLFLOW", "DVC_ROOT", "DVC_EXP_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """Create a database of nothing but tables once, since that takes seconds."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}")
    return file


@pytest.fixture
def root(tmp_path, empty):
    shutil.copy(empty, tmp_path)
    return tmp_path


def make(root, name, metrics, epochs=0):
    write_json(root / "artifacts" / name / "metrics.json", metrics)
    if epochs:
        history = [
            {"epoch": epoch, "loss": 1 / epoch, "val_accuracy": epoch / 10}
            for epoch in range(1, epochs + 1)
        ]
        write_json(root / "artifacts" / name / "history.json", history)


def client(root):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{root}/mlflow.db")


def runs(root):
    return {run.info.run_name: run for run in every_run(root)}


def every_run(root):
    store = client(root)
    return store.search_runs([store.get_experiment_by_name("sparse-model-soups").experiment_id])


def values(root, run, key):
    history = client(root).get_metric_history(run.info.run_id, key)
    return sorted((metric.step, metric.value) for metric in history)


@pytest.fixture(scope="module")
def logged(tmp_path_factory, empty):
    """One run with every kind of outcome; what is logged of it is checked below."""
    root = tmp_path_factory.mktemp("a repository")
    shutil.copy(empty, root)
    heard = []
    make(root, "dense", {"test_accuracy": 0.5, "by": {"fog": [0.4, 0.3]}, "name": "x"}, epochs=2)
    make(root, "p1-c0", {"test_accuracy": 0.6}, epochs=3)
    write_json(root / "artifacts" / "data" / "meta.json", {"name": "toy", "classes": ["a", "b"]})
    (root / "reports").mkdir()
    (root / "reports" / "results.md").write_text("# Results")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("SMS_MLFLOW", raising=False)
        patch.setenv("DVC_EXP_NAME", "pithy-wren")
        tracker = Tracker(root, heard.append)
        before = time.time_ns() // 1_000_000
        tracker.open(NODES, PARAMS)
        tracker.finished("dense", "cached", 0.0)
        tracker.started("p1-c0")
        tracker.event("p1-c0", {"epoch": 1, "epochs": 3, "loss": 1.0})
        tracker.event("p1-c0", {"epoch": 2, "epochs": 3, "loss": 0.5})
        tracker.event("p1-c0", {"corruption": "fog", "done": 1})
        tracker.started("p1-c1")
        tracker.finished("p1-c0", "ran", 1.5)
        tracker.finished("p1-c1", "failed", 0.5)
        tracker.finished("sms-p1", "skipped", 0.0)
        tracker.started("p1-prune")
        told = time.time_ns() // 1_000_000 - before
        tracker.dataset(root / "artifacts" / "data", "f" * 32 + ".dir")
        tracker.report(root / "reports", ROWS)
        tracker.close("KILLED")
    assert heard == []
    return root, runs(root), told


@slow
def test_the_driver_does_not_wait_for_mlflow(logged):
    _, _, told = logged
    assert told < 1000  # importing MLflow alone takes longer


@slow
def test_nodes_are_nested_runs_with_labels_and_arguments(logged):
    _, found, _ = logged
    parent = found["pithy-wren toy m=2"]
    for name in ("dense", "p1-c0", "p1-c1", "p1-prune"):
        assert found[name].data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert found[name].data.tags.items() >= {**NODES[name].labels, "recipe": "toy"}.items()
    assert found["dense"].data.params == {"epochs": "2", "milestones": "0.5, 0.7"}
    assert "sms-p1" not in found


@slow
def test_outcomes_become_the_status(logged):
    _, found, _ = logged
    status = {name: run.info.status for name, run in found.items()}
    assert status["dense"] == status["p1-c0"] == "FINISHED"
    assert status["p1-c1"] == "FAILED"
    assert status["p1-prune"] == status["pithy-wren toy m=2"] == "KILLED"
    assert found["dense"].data.tags["cached"] == "true"
    assert found["p1-c0"].data.tags["cached"] == "false"


@slow
def test_a_cached_node_has_its_curves_and_final_numbers(logged):
    root, found, _ = logged
    assert values(root, found["dense"], "epoch/loss") == [(1, 1.0), (2, 0.5)]
    assert values(root, found["dense"], "by/fog") == [(1, 0.4), (2, 0.3)]
    assert found["dense"].data.metrics["test_accuracy"] == 0.5
    assert "name" not in found["dense"].data.metrics


@slow
def test_live_values_are_completed_but_not_doubled(logged):
    root, found, _ = logged
    run = found["p1-c0"]
    assert values(root, run, "epoch/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert values(root, run, "epoch/val_accuracy") == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert run.data.metrics["seconds"] == 1.5
    assert "epoch/done" not in run.data.metrics


@slow
def test_the_parent_says_what_was_run(logged):
    _, found, _ = logged
    parent = found["pithy-wren toy m=2"]
    assert parent.data.params == {
        "recipe": "toy",
        "m": "2",
        "methods": "imp, sms",
        "retrain.epochs": "3",
    }
    assert parent.data.tags.items() >= {"m": "2", "dvc.experiment": "pithy-wren"}.items()
    counts = {
        key: parent.data.metrics[f"stages/{key}"] for key in ("ran", "cached", "failed", "skipped")
    }
    assert counts == {"ran": 1, "cached": 1, "failed": 1, "skipped": 1}
    dataset = parent.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("toy", "f" * 32)


@slow
def test_results_are_a_table_and_means_over_the_seeds(logged):
    root, found, _ = logged
    row = found["sms p1 s1"].data
    assert row.params.items() >= {"method": "sms", "phase": "1", "seed": "1", "m": "2"}.items()
    assert row.tags["kind"] == "result"
    assert row.metrics == {"sparsity": 0.9, "test_score": 0.9}
    parent = found["pithy-wren toy m=2"]
    assert values(root, parent, "test_score/sms") == [(1, pytest.approx(0.8))]
    spread = values(root, parent, "test_score_std/sms")
    assert spread == [(1, pytest.approx(0.02**0.5))]  # sqrt((0.1^2 + 0.1^2) / (2 - 1))
    assert "test_score_std/imp" not in parent.data.metrics
    assert "| sms | 90.00 % | 80.00 % |" in parent.data.tags["mlflow.note.content"]


@slow
def test_the_report_is_an_artifact_beside_the_database(logged):
    root, found, _ = logged
    run_id = found["pithy-wren toy m=2"].info.run_id
    file = root / "mlartifacts" / run_id / "artifacts" / "report" / "results.md"
    assert file.read_text() == "# Results"


@slow
def test_experiments_in_copies_share_the_main_database_and_its_creation(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    heard, trackers = [], []
    for number in range(3):
        copy = tmp_path / f"copy{number}"
        make(copy, "dense", {"test_accuracy": 0.5})
        monkeypatch.setenv("DVC_EXP_NAME", f"exp{number}")
        tracker = Tracker(copy, heard.append)
        tracker.start()  # side by side, each with its experiment's name
        tracker.open(NODES, PARAMS)
        tracker.finished("dense", "cached", 0.0)
        trackers.append(tracker)
    for tracker in trackers:
        tracker.close()
    assert heard == []
    assert {f"exp{number} toy m=2" for number in range(3)} < set(runs(tmp_path))


@slow
@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "sqlite:////dev/null/mlflow.db"])
def test_an_unreachable_server_costs_one_sentence(tmp_path, monkeypatch, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    heard = []
    tracker = Tracker(tmp_path, heard.append)
    tracker.open(NODES, PARAMS)
    for _ in range(3):
        tracker.started("dense")
        tracker.finished("dense", "ran", 1.0)
    tracker.close()
    assert len(heard) == 1
    assert address in heard[0]
    assert "untracked" in heard[0]
    assert not tracker.complete, "the next run logs it"
    assert list(tmp_path.glob("mlflow.db")) == []


@slow
def test_runs_are_closed_when_the_driver_is_killed(root):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from tests.test_track import NODES, PARAMS; from pipeline.track.tracker import Tracker\n"
        "t = Tracker(Path(sys.argv[1])); t.open(NODES, PARAMS); t.started('dense')\n"
        "while t.run_id is None: time.sleep(0.1)\n"
        "print('open', flush=True); time.sleep(600)\n"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", script, root], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    with driver:
        assert driver.stdout.readline() == b"open\n"
        os.kill(driver.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while {run.info.status for run in runs(root).values()} != {"KILLED"}:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert set(runs(root)) == {"repro toy m=2", "dense"}


@slow
def test_a_driver_that_ends_before_mlflow_is_loaded_has_its_run(root):
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.test_track import NODES, PARAMS; from pipeline.track.tracker import Tracker\n"
        "t = Tracker(Path(sys.argv[1])); t.open(NODES, PARAMS); t.started('dense')\n"
        "t.finished('dense', 'ran', 1.0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, root], check=False, cwd=Path.cwd())
    assert done.returncode == -signal.SIGKILL
    deadline, found = time.monotonic() + 60, {}
    while found != {"repro toy m=2": "KILLED", "dense": "FINISHED"}:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
        # Not by a client, which would create the database at the same time.
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(root / "mlflow.db")) as db:
            found = dict(db.execute("SELECT name, status FROM runs"))


@slow
def test_runs_of_a_killed_writer_end_with_the_next_run(root):
    warnings = []
    killed = Tracker(root, warnings.append)
    killed.open(NODES, PARAMS)
    killed.started("dense")
    deadline = time.monotonic() + 60
    while killed.run_id is None or len(every_run(root)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    killed._process.kill()
    killed.close()
    assert not killed.complete
    assert warnings == [
        "MLflow's process ended early with status -9, and this run is incomplete there: the next "
        "`dvc repro` logs it from the cache"
    ]
    before = {run.info.run_id for run in runs(root).values()}
    assert {run.info.status for run in runs(root).values()} == {"RUNNING"}

    working = Tracker(root)
    working.open(NODES, PARAMS)
    working.started("dense")
    working.finished("dense", "failed", 1.0)
    working.close()
    after = {run.info.run_id: run.info.status for run in every_run(root)}
    assert {after[run] for run in before} == {"KILLED"}
    assert sorted(after[run] for run in after.keys() - before) == ["FAILED", "FINISHED"]
    assert list((root / ".dvc" / "tmp" / "sms" / "mlflow").iterdir()) == []


@slow
def test_no_run_stays_open_where_mlflow_refuses_a_value(root, monkeypatch):
    from mlflow.exceptions import MlflowException

    from pipeline.track.log import Log

    monkeypatch.chdir(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    log = Log(None)
    log.open(str(root), PARAMS)
    node = {"name": "dense", "labels": {}, "arguments": {}}
    log.started(node)

    def refuse(*_, **__):
        raise MlflowException("database or disk is full")

    with monkeypatch.context() as full:
        full.setattr(log.client, "log_batch", refuse)
        with pytest.raises(MlflowException):
            log.finished(node, "ran", 1.0)
    log.close("KILLED")
    assert {run.info.status for run in every_run(root)} == {"KILLED"}


def test_it_can_be_switched_off(tmp_path, monkeypatch):
    monkeypatch.setenv("SMS_MLFLOW", "0")
    tracker = Tracker(tmp_path)
    tracker.open(NODES, PARAMS)
    tracker.finished("dense", "cached", 0.0)
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_a_run_in_which_nothing_was_run_can_be_dropped(tmp_path):
    """MLflow's process is not even started."""
    tracker = Tracker(tmp_path)
    tracker.open(NODES, PARAMS)
    tracker.finished("dense", "cached", 0.0)
    tracker.drop()
    tracker.close()
    assert list(tmp_path.iterdir()) == []
    assert tracker.complete


@slow
def test_nothing_is_logged_of_a_run_that_never_opened(root):
    tracker = Tracker(root)
    tracker.start()
    tracker.close("FAILED")
    assert runs(root) == {}


@slow
def test_a_registered_soup_loads_and_predicts_what_the_network_does(root, monkeypatch):
    torch.manual_seed(0)
    network = build("resnet8", 10, 1).eval()
    meta = {"network": "resnet8", "classes": 10, "channels": 1, "phase": 3, "sparsity": 0.9}
    folders = {name: root / "artifacts" / name for name in ("soup", "data")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    save(folders["soup"] / "model.safetensors", Checkpoint(network.state_dict(), {}, meta))
    images = torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8)
    split, names = Split(images, torch.arange(7)), tuple("0123456789")
    scale = torch.tensor([0.3]), torch.tensor([0.2])
    save_data(Dataset(split, split, split, names, *scale, {}), folders["data"])
    heard = []
    tracker = Tracker(root, heard.append)
    tracker.open(NODES, PARAMS)
    registered = ("one.dir", "old"), ("one.dir", "new"), ("two.dir", "two"), ("one.dir", "")
    for digest, text in registered:
        tracker.register(
            Registration("sms-toy", folders["soup"], folders["data"], digest, {"phase": "3"}, text)
        )
    tracker.close()
    assert heard == []
    versions = client(root).search_model_versions("name = 'sms-toy'")
    found = {version.version: version.tags["model_hash"] for version in versions}
    assert {int(number): digest for number, digest in found.items()} == {1: "one.dir", 2: "two.dir"}
    texts = {int(version.version): version.description for version in versions}
    assert texts == {1: "new", 2: "two"}
    assert client(root).get_registered_model("sms-toy").description == "two"
    assert runs(root)["repro toy m=2"].data.tags["soup"] == "models:/sms-toy/1"

    # In a process that cannot see this project.
    np.save(root / "images.npy", images.numpy())
    script = (
        "import sys, mlflow, numpy as np\n"
        "model = mlflow.pyfunc.load_model('models:/sms-toy/1')\n"
        "assert not any(name.split('.')[0] == 'pipeline' for name in sys.modules)\n"
        "images = np.load('images.npy')\n"
        "np.save('all.npy', model.predict(images)); np.save('one.npy', model.predict(images[:1]))\n"
        "print(model.metadata.signature)\n"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "uint8" in done.stdout
    with torch.inference_mode():
        expected = torch.softmax(network((images / 255 - 0.3) / 0.2), dim=1).numpy()
    np.testing.assert_allclose(np.load(root / "all.npy"), expected, atol=1e-5)
    np.testing.assert_allclose(np.load(root / "one.npy"), expected[:1], atol=1e-5)

    # By the runtime that skips pruned weights, with this project.
    import mlflow

    (version,) = [each for each in versions if int(each.version) == 1]
    sparse = mlflow.pyfunc.load_model(version.source, model_config={"runtime": "sparse"})
    np.testing.assert_allclose(sparse.predict(images.numpy()), expected, atol=1e-5)
    with pytest.raises(ValueError, match="is 'x', but must be torch or sparse"):
        mlflow.pyfunc.load_model(version.source, model_config={"runtime": "x"})

    meta = folders["data"] / "meta.json"
    meta.write_text(meta.read_text().replace('"9"', '"nine"'))
    tracker = Tracker(root, heard.append)
    tracker.open(NODES, PARAMS)
    tracker.register(Registration("sms-toy", folders["soup"], folders["data"], "one.dir", {}))
    tracker.close()
    assert len(client(root).search_model_versions("name = 'sms-toy'")) == 3, "with other classes"


@slow
def test_a_soup_that_cannot_be_exported_leaves_the_rest_of_the_run(root):
    heard = []
    tracker = Tracker(root, heard.append)
    tracker.open(NODES, PARAMS)
    tracker.register(Registration("sms-toy", root / "nothing", root / "nothing", "one", {}))
    tracker.close()
    assert len(heard) == 1
    assert "sms-toy" in heard[0]
    assert runs(root)["repro toy m=2"].info.status == "FINISHED"
    assert not tracker.complete, "the next run tries again: the folder may be there"


@pytest.mark.parametrize(
    ("error", "complete"), [(OSError("locked"), False), (UserError("no graph"), True)]
)
def test_a_registration_that_failed_in_passing_is_tried_again(capsys, error, complete):
    def register(**_):
        raise error

    def close(**_):
        pass

    inbox = queue.SimpleQueue()
    inbox.put(("register", 0, {"name": "sms-toy"}))
    inbox.put(("close", 0, {}))
    assert writer.serve(SimpleNamespace(register=register, close=close), inbox) is complete
    again = "" if complete else ", which the next `dvc repro` repeats"
    assert f"sms-toy is not registered in MLflow{again}: {error}" in capsys.readouterr().out


def test_a_version_is_known_by_its_network_the_code_of_the_export_and_the_data(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(registration, "PACKAGE", tmp_path)
    assert all((PACKAGE / name).is_file() for name in registration.CODE)
    inference = ("inference/lower.py", "inference/costs.csv")
    files = [tmp_path / name for name in (*registration.CODE, *inference, "meta.json")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    soup = Registration("sms-toy", tmp_path, tmp_path, "one.dir", {})
    seen = [soup.hashes(), replace(soup, digest="two.dir").hashes()]
    assert soup.hashes() == seen[0]
    for file in files:
        file.write_text("mended")
        seen.append(soup.hashes())
    assert len({tuple(each.values()) for each in seen}) == 2 + len(files)


def test_curves_keep_numbers_of_whole_epochs_only():
    record = {"epoch": 3, "epochs": 9, "loss": 0.5, "best": True, "note": "x"}
    assert summary.curves([record, {"loss": 1.0}]) == [("epoch/loss", 3, 0.5)]


def test_metrics_are_numbers_and_tables_of_numbers():
    metrics = {"loss": 1, "included": [0, 2], "by": {"fog (light)": [0.5, 0.25]}, "x": None}
    deeper = {"layers": {"conv1": {"macs": 9}}}
    expected = [("loss", 0, 1.0), ("by/fog _light_", 1, 0.5), ("by/fog _light_", 2, 0.25)]
    assert summary.points(metrics | deeper) == expected
