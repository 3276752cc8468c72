"""The command that serves the MLflow UI and opens its saved views."""

import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pipeline.errors import UserError
from pipeline.show import mlflow_ui
from pipeline.show.mlflow_experiments import missing
from pipeline.show.run_counts import run_counts
from pipeline.track import ui_views
from tests.project import ROOT

# MLflow and the libraries that it loads warn of their own future.
pytestmark = pytest.mark.filterwarnings("default")
slow = pytest.mark.slow
CLOCK = itertools.count(1)  # the start of each run, in milliseconds
VIEW = "http://127.0.0.1:{port}/#/experiments/{experiment}/runs?viewStateShareKey={view}"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture
def opened(monkeypatch):
    """Return the links that are opened in a browser."""
    links = []
    monkeypatch.setattr(mlflow_ui.webbrowser, "open", links.append)
    monkeypatch.setattr(mlflow_ui.sys, "platform", "linux")
    return links


@pytest.fixture
def remote(monkeypatch):
    """Serve MLflow's REST API with the experiments of the yielded list, of which two are ours."""
    views = [{"key": ui_views.tag(view), "value": "{}"} for view in ui_views.VIEWS]
    experiments = [
        {"experiment_id": "7", "name": "newer", "tags": views},
        {"experiment_id": "5", "name": "another project's", "tags": []},
        {"experiment_id": "3", "name": "older", "tags": views},
    ]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/api/2.0/mlflow/experiments/search"
            assert asked["order_by"] == ["creation_time DESC"]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"experiments": experiments}).encode())

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}/")
        yield server.server_port, experiments
        server.shutdown()


@pytest.mark.parametrize("content", [None, b""])
def test_without_a_database_one_sentence_says_what_to_run(tmp_path, content, monkeypatch):
    if content is not None:
        (tmp_path / "mlflow.db").write_bytes(content)
    monkeypatch.setattr(mlflow_ui.subprocess, "Popen", None)  # no server is started
    with pytest.raises(UserError, match=r"no run is logged in sqlite:.*: run `make repro` first"):
        mlflow_ui.ui(tmp_path, [])
    assert run_counts(tmp_path) == {}
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"] * (content is not None)


def test_a_missing_database_is_looked_for_where_the_address_says(tmp_path):
    (tmp_path / "other.db").write_bytes(b"x")
    assert not missing(tmp_path, "sqlite:///other.db")
    assert not missing(tmp_path / "else", f"sqlite:///{tmp_path}/other.db")
    assert missing(tmp_path, "sqlite:///mlflow.db")
    assert not missing(tmp_path, "postgresql://host/db")


def test_the_next_free_port_is_taken_but_no_other_than_the_one_asked_for(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(mlflow_ui, "PORT", port)
        chosen = mlflow_ui.free_port(None)
        assert port < chosen < port + mlflow_ui.TRIED
        monkeypatch.setattr(mlflow_ui, "REFUSED", {chosen})
        assert chosen < mlflow_ui.free_port(None), "browsers open no page on these"
        with pytest.raises(UserError, match=f"--port {port} is taken"):
            mlflow_ui.free_port(port)
        with pytest.raises(UserError, match=r"--port is 99999, but must be in \[1, 65535\]"):
            mlflow_ui.free_port(99999)
        monkeypatch.setattr(mlflow_ui, "TRIED", 1)
        with pytest.raises(UserError, match=f"all ports from {port} to {port} are taken"):
            mlflow_ui.free_port(None)


@pytest.mark.parametrize(
    "case", [([], ":0", True), ([], "", False), (["--no-browser"], ":0", False)]
)
def test_links_of_a_remote_server(remote, opened, capsys, monkeypatch, case):
    arguments, display, opens = case
    monkeypatch.setenv("DISPLAY", display)
    assert mlflow_ui.ui(ROOT, arguments) == 0
    links = re.findall(r"http\S+", capsys.readouterr().out)
    expected = [
        VIEW.format(port=remote[0], experiment=experiment, view=view)
        for experiment in (7, 3)
        for view in ("experiments", "results")
    ]
    assert [link.partition("&")[0] for link in links] == expected
    assert opened == (links[:2] if opens else []), "the newest experiment's"


def test_a_server_without_runs_of_this_project_is_one_sentence(remote):
    port, experiments = remote
    experiments[:] = [found for found in experiments if not found["tags"]]
    with pytest.raises(
        UserError, match=rf"no run is logged in http.*:{port}/ yet: run `make repro`"
    ):
        mlflow_ui.ui(ROOT, [])


def test_a_remote_server_that_does_not_answer_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"MLflow at http://127.0.0.1:9 does not answer: "):
        mlflow_ui.ui(tmp_path, [])


def test_the_description_says_what_each_kind_of_run_is_and_links_to_the_views():
    text = ui_views.description("42")
    first, *rest = text.split("\n\n")
    for view in ui_views.VIEWS:
        assert f"](#/experiments/42/runs?viewStateShareKey={view}&" in first, "seen without a click"
    assert all(f"| `{kind}` |" in rest[0] for kind in ("graph", "result"))
    scripts = {file.stem for file in (ROOT / "stages").glob("*.py")}
    named = set(re.findall(r"`(pretrain|prune|retrain|merge)`", rest[0]))
    assert named == {"pretrain", "prune", "retrain", "merge"} & scripts


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Log an experiment's run, and those of an earlier one of the same name, in a new database."""
    root = tmp_path_factory.mktemp("project")
    (root / "params.yaml").touch()
    with logging(root) as log:
        for baseline, outcomes in [("a", ["ran"]), ("b", ["ran"]), ("b", ["cached", "cached"])]:
            log(baseline, outcomes)
    return root


@contextmanager
def logging(root):
    """Yield a function that logs a run of an experiment as the tracker's process does."""
    from pipeline.track.log import Log

    def log(baseline, outcomes, rows=()):
        patch.setenv("DVC_EXP_BASELINE_REV", baseline)
        run = Log(f"{root}/mlartifacts")
        run.clock = next(CLOCK)
        run.open(str(root), {"recipe": "toy", "m": 2})
        for number, outcome in enumerate(outcomes):
            node = {"name": f"n{number}", "labels": {"kind": "pretrain"}, "arguments": {}}
            run.finished(node, outcome, 0.0)
        run.report("reports", rows, "note")
        run.close("FINISHED")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        patch.setenv("DVC_EXP_NAME", "pithy-wren")
        yield log


def server_of(root, *arguments):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "ui", "--no-browser", *arguments],
        cwd=root,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@slow
def test_counts_are_those_of_the_newest_run_of_an_experiment(logged):
    found = run_counts(logged)
    assert found == {("a", "pithy-wren"): (1, 0), ("b", "pithy-wren"): (0, 2)}


@slow
def test_the_description_is_written_once_and_an_edited_one_is_kept(logged, tmp_path):
    from mlflow import MlflowClient

    root = shutil.copytree(logged, tmp_path / "project")
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'sparse-model-soups'")
    identifier = experiment.experiment_id
    assert experiment.tags[ui_views.DESCRIPTION] == ui_views.description(identifier)
    client.set_experiment_tag(identifier, ui_views.DESCRIPTION, "mine")
    with logging(root) as log:
        log("c", [])
    assert client.get_experiment(identifier).tags[ui_views.DESCRIPTION] == "mine"


@pytest.fixture
def ctrl_c():
    """Give SIGINT, which is not ignored here, as it is in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.SIGINT
    signal.signal(signal.SIGINT, before)


@slow
def test_it_serves_the_views_until_ctrl_c_and_leaves_no_process(logged, ctrl_c):
    with server_of(logged) as server:
        try:
            lines = iter(server.stdout.readline, "Ctrl-C ends it.\n")
            links = re.findall(r"http\S+", "".join(lines))
            assert [re.search(r"ShareKey=(\w+)", link)[1] for link in links] == [*ui_views.VIEWS]
            address = links[0].partition("/#/")[0]
            assert address.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(f"{address}/") as page:
                assert b"MLflow" in page.read()
            children = subprocess.run(
                ["pgrep", "-P", str(server.pid)], capture_output=True, text=True, check=False
            ).stdout.split()
            assert len(children) == 1
        finally:
            server.send_signal(ctrl_c)
            rest, _ = server.communicate(timeout=60)
    assert server.returncode == 0, rest
    assert rest == "\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(int(children[0]), 0)  # the server's group, its workers included
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        pass


@slow
def test_chromium_shows_the_views_and_the_registered_model(logged, tmp_path):
    """docs/screenshots.py: the pages show the names and numbers of the store."""
    from mlflow import MlflowClient

    spec = importlib.util.spec_from_file_location("screenshots", ROOT / "docs/screenshots.py")
    screenshots = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(screenshots)
    chromium = screenshots.browser()
    if chromium is None:
        pytest.skip(f"none of {', '.join(screenshots.NAMES)} is installed")
    root = shutil.copytree(logged, tmp_path / "project")
    rows = [
        {"method": method, "phase": phase, "seed": 5, "test_score": score}
        for method, phase, score in (("dense", 0, 0.8125), ("imp", 2, 0.9375))
    ]
    with logging(root) as log:
        log("c", ["ran"], rows)
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    client.create_registered_model("sms-toy")
    client.create_model_version("sms-toy", "nowhere", description="`net` for tests. More.")
    out = tmp_path / "out"
    with screenshots.served(root) as links:
        assert screenshots.check(chromium, links, out) == []
        asked = {name: texts for name, (_, texts) in screenshots.pages(links).items()}
    assert asked["experiments"][1:] == ["test_score/dense", "pithy-wren toy m=2", "0.8125"]
    assert asked["results"][1:] == ["test_score", "imp p2 s5", "0.9375"]
    assert asked["sms-toy"] == ["sms-toy", "net for tests"]
    assert all((out / f"{name}.png").stat().st_size > 10_000 for name in asked)


@slow
@pytest.mark.parametrize(
    ("store", "arguments", "reason"),
    [
        ("sqlite:///mlflow.db", ["--no-such-flag"], "No such option '--no-such-flag'"),
        ("file:", [], "The filesystem tracking backend .* not receive further updates"),
        ("sqlite:///params.yaml", [], r"\(sqlite3.DatabaseError\) file is not a database"),
    ],
)
def test_a_server_that_does_not_start_is_one_sentence(
    logged, tmp_path, monkeypatch, store, arguments, reason
):
    root = shutil.copytree(logged, tmp_path / "project")
    (root / "params.yaml").write_text("no database")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    with server_of(root, *arguments) as server:
        output = server.stdout.read()
    assert server.returncode == 2
    assert re.fullmatch(
        rf"error: MLflow does not start on {store} \({reason}\): correct MLFLOW_TRACKING_URI, the "
        r"store or the arguments; \S*mlflow-server\.log has its output\n",
        output,
    )


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("", "no output"),
        ("INFO: starts\nKilled\n", "Killed"),
        ("a.b.XError: one. Two\n  at x\nsee (Error at: y)", "one"),
        ("OSError: [Errno 98] in use\nRuntimeError: no server.\n", "no server"),
    ],
)
def test_the_reason_is_the_last_error_of_the_output(output, reason):
    assert mlflow_ui._reason(output) == reason
