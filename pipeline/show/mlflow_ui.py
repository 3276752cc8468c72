"""The MLflow UI on the recorded runs, opened at its saved views."""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError
from pipeline.process import die_with_parent
from pipeline.show.mlflow_experiments import missing, ours
from pipeline.track.tracker import location
from pipeline.track.ui_views import VIEWS, link

HOST, PORT, TRIED = "127.0.0.1", 5000, 100  # the first port, and how many are tried
REFUSED = {5060, 5061}  # by browsers: the ports of SIP
PATIENCE = 120.0  # seconds until MLflow must answer
GRACE = 10.0  # seconds that MLflow has to end
LOG = ".dvc/tmp/sms/mlflow-server.log"
ERROR = re.compile(r"^(?:[\w.]*\.)?\w*(?:Error|Exception): +(.+)", re.MULTILINE)


def ui(root: Path, arguments: Sequence[str]) -> int:
    """Serve the UI of the checkout at ``root`` until Ctrl-C, or open that of a remote server.

    Raises:
        UserError: nothing was logged yet, the port is taken, or MLflow does not start or answer.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pipeline ui",
        description="Open the saved views of the MLflow UI.",
        epilog="All other arguments are those of `mlflow server`.",
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=int, help=f"default: {PORT}, or the next free one")
    parser.add_argument("--no-browser", action="store_true", help="only print the links")
    flags, others = parser.parse_known_args(arguments)
    home, store, _ = location(root)
    if store.startswith(("http://", "https://")):
        _open(_links(store, store), browser=not flags.no_browser)
        return 0
    if missing(home, store):
        raise _nothing_logged(store)
    address = f"http://{HOST}:{free_port(flags.port)}"
    with _serving(home, store, address, others) as server:
        _open(_links(address, store), browser=not flags.no_browser)
        sys.stdout.write("Ctrl-C ends it.\n")
        sys.stdout.flush()
        server.wait()
    raise UserError(f"MLflow has ended; {home / LOG} has its output")


def free_port(wanted: int | None) -> int:
    """Return ``wanted``, or the first free port from `PORT` on.

    Raises:
        UserError: it is taken, or no port.
    """
    if wanted is not None and not 0 < wanted < 2**16:
        raise UserError(f"--port is {wanted}, but must be in [1, 65535]")
    ports = [port for port in range(PORT, PORT + TRIED) if port not in REFUSED]
    for port in [wanted] if wanted else ports:
        try:
            socket.create_server((HOST, port)).close()
        except OSError:
            continue
        return port
    if wanted:
        raise UserError(f"--port {wanted} is taken or not allowed: name another, or leave it out")
    raise UserError(f"all ports from {PORT} to {PORT + TRIED - 1} are taken: name one, --port")


@contextmanager
def _serving(
    home: Path, store: str, address: str, arguments: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``mlflow server`` on ``store`` in the block, which Ctrl-C and SIGTERM end quietly."""
    log = home / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    port = address.rpartition(":")[2]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
    command += ["--host", HOST, "--port", port, "--workers", "1", *arguments]
    # Its background jobs belong to GenAI evaluations; they are seven processes.
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | os.environ
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=home,
            env=env | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its children end with it, all at once
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - there is no thread yet
        )
    try:
        _wait(server, store, address, log)
        yield server
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        sys.exit(0)
    finally:
        _end(server)
        signal.signal(signal.SIGTERM, previous)


def _end_with_parent() -> None:
    die_with_parent(signal.SIGTERM)


def _wait(server: subprocess.Popen[bytes], store: str, address: str, log: Path) -> None:
    """Wait until ``server`` of ``store`` answers.

    Raises:
        UserError: it has ended, or does not answer in time.
    """
    deadline = time.monotonic() + PATIENCE
    while not _answers(address):
        if server.poll() is not None or time.monotonic() > deadline:
            raise UserError(
                f"MLflow does not start on {store} "
                f"({_reason(log.read_text(encoding='utf-8', errors='replace'))}): correct "
                f"MLFLOW_TRACKING_URI, the store or the arguments; {log} has its output"
            )
        time.sleep(0.1)


def _reason(output: str) -> str:
    """Return the first sentence of the last error in ``output``, or else its last line."""
    lines = ERROR.findall(output) or output.strip().splitlines() or ["no output"]
    return str(lines[-1]).partition(". ")[0].strip(" .")[:200]


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:  # noqa: S310 - http
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _end(server: subprocess.Popen[bytes]) -> None:
    """End ``server`` and its children."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            return
        try:
            server.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue


def _links(address: str, store: str) -> dict[str, list[str]]:
    """Return the links to the saved views of each experiment at ``address``, the newest first.

    Raises:
        UserError: it has none, or does not answer.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    # Imported here: MLflow takes seconds to load.
    from mlflow import MlflowClient  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        experiments = ours(MlflowClient(address))
    except MlflowException as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"MLflow at {address} does not answer: {reason}") from None
    if not experiments:
        raise _nothing_logged(store)
    base = address.rstrip("/")
    return {
        experiment.name: [f"{base}/{link(experiment.experiment_id, view)}" for view in VIEWS]
        for experiment in experiments
    }


def _nothing_logged(store: str) -> UserError:
    return UserError(f"no run is logged in {store} yet: run `make repro` first")


def _open(links: dict[str, list[str]], *, browser: bool) -> None:
    """Print ``links``, and open those of the first experiment if there is a display."""
    for name, addresses in links.items():
        sys.stdout.write(f"{name}\n")
        for view, address in zip(VIEWS.values(), addresses, strict=True):
            sys.stdout.write(f"  {view:<12} {address}\n")
    sys.stdout.flush()
    if browser and _has_display():
        for address in next(iter(links.values())):
            webbrowser.open(address)


def _has_display() -> bool:
    """Return whether a browser with windows can open; a browser in the terminal would hide it."""
    return sys.platform in {"darwin", "win32"} or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
