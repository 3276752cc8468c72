"""Tracker: sends the events of a run to a second process, which logs them in MLflow."""

import json
import math
import numbers
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol

from pipeline.code_files import main_checkout
from pipeline.process import flag
from pipeline.track.registration import Registration
from pipeline.track.summary import flatten, results_note

Outcome = Literal["ran", "cached", "failed", "skipped"]
Status = Literal["FINISHED", "FAILED", "KILLED"]
State = Literal["off", "keeps", "writes", "closed"]  # of a tracker


class Node(Protocol):
    """The properties of a stage that are logged."""

    @property
    def name(self) -> str:
        """The stage's name, which is also its folder under artifacts/."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The flags of the stage's command line with their values."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Kind, methods, phase, candidate, seed and m, those that apply."""


def _to_stderr(sentence: str) -> None:
    sys.stderr.write(f"warning: {sentence}\n")


def _plain(value: Any) -> str | float | None:
    if value is None or isinstance(value, bool | str):
        return None if value is None else str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):  # the runs of the stages have the exact numbers
        return round(float(value), 4) if math.isfinite(value) else None
    return str(value)


def location(root: Path) -> tuple[Path, str, str | None]:
    """Return the folder, address and artifact address of the MLflow store of a repository.

    The address is ``MLFLOW_TRACKING_URI`` or, without it, mlflow.db in the main repository.
    Experiments run in a temporary copy; for them DVC names the main repository in ``DVC_ROOT``.
    """
    home = main_checkout(root).resolve()
    address = os.environ.get("MLFLOW_TRACKING_URI")
    if address:
        return home, address, None
    return home, f"sqlite:///{home / 'mlflow.db'}", (home / "mlartifacts").as_uri()


class Tracker:
    """Logs one MLflow run per execution of the graph, with one nested run per stage.

    A listener of ``pipeline.run.execute``. MLflow runs in a process of its own
    (``pipeline.track.writer``), which reads JSON lines. Thus the driver waits neither for the
    import of MLflow, which takes seconds, nor for a slow server, and the runs are closed even if
    the driver is killed. A failure of that process is reported in one sentence to ``warn`` and
    affects no stage. ``SMS_MLFLOW=0`` switches tracking off.

    A tracker is *off*, or it goes through three states: it *keeps* events until the first stage
    runs, or until ``start``; from then on it *writes* to the process; at the end it is *closed*.
    """

    def __init__(self, root: Path, warn: Callable[[str], None] = _to_stderr) -> None:
        self._root = root.resolve()
        self._warn = warn
        self._nodes: Mapping[str, Node] = {}
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._state: State = "keeps" if flag("SMS_MLFLOW") else "off"
        self._kept: list[str] = []  # the messages before the process is started
        self._warned = False  # whether the process has sent a warning
        self.run_id: str | None = None
        self.complete = True  # whether everything sent has been written

    def start(self) -> None:
        """Start the writing process; the earlier the better, since MLflow takes seconds to load."""
        if self._state != "keeps":
            return
        home, address, artifacts = location(self._root)
        code = Path(__file__).resolve().parents[2]
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")])),
            "MLFLOW_TRACKING_URI": address,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.track.writer", artifacts or ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            cwd=home,  # a relative address is relative to the main repository in every experiment
            env=env,
            start_new_session=True,  # only the driver handles Ctrl-C
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._state = "writes"
        for line in self._kept:
            self._write(line)

    def drop(self) -> None:
        """Forget the kept events; those that the process has already stay."""
        self._kept.clear()

    def open(self, nodes: Mapping[str, Node], params: Mapping[str, Any]) -> None:
        """Open the parent run of the graph of ``nodes`` with its ``params``, nested or not."""
        self._nodes = nodes
        self._send("open", root=str(self._root), params=dict(flatten(params, ".")))

    def started(self, name: str) -> None:
        """Open the run of a stage that starts."""
        self.start()
        self._send("started", node=self._describe(name))

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Log the values that a running stage reported, as curves over its epochs."""
        self._send("event", name=name, fields=dict(fields))

    def finished(self, name: str, outcome: Outcome, seconds: float) -> None:
        """Close the run of a stage, or add that of a stage with a cached result."""
        self._send("finished", node=self._describe(name), outcome=outcome, seconds=seconds)

    def dataset(self, folder: Path, digest: str) -> None:
        """Log the data set in ``folder`` as the parent run's input, by its DVC hash."""
        self._send("dataset", folder=str(folder.resolve()), digest=digest)

    def report(self, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log the files in ``folder`` and the table of results.

        Each of ``rows`` (method, phase, seed, and numbers) becomes a nested run of the kind
        ``result``; the means over the seeds become the parent's metrics ``<number>/<method>``
        with the phase as their step.
        """
        plain = [{key: _plain(value) for key, value in row.items()} for row in rows]
        note = results_note(plain)
        self._send("report", folder=str(folder.resolve()), rows=plain, note=note)

    def register(self, soup: Registration) -> None:
        """Register ``soup``; a version with its hash is only described anew."""
        paths = {"model": str(soup.model.resolve()), "data": str(soup.data.resolve())}
        self._send("register", **asdict(soup) | paths)

    def close(self, status: Status = "FINISHED") -> None:
        """End the runs with ``status`` and wait until all events are written."""
        if self._kept:
            self.start()
        process, listener = self._process, self._listener
        if self._state != "writes" or process is None or listener is None:
            return
        self._send("close", status=status)
        self._state = "closed"
        try:
            if process.stdin is not None:
                process.stdin.close()
        except BrokenPipeError:
            pass  # the process has ended, and its reason was reported
        self.complete = process.wait() == 0
        listener.join()
        if not (self.complete or self._warned):
            self._warn(
                f"MLflow's process ended early with status {process.returncode}, and this run is "
                "incomplete there: the next `dvc repro` logs it from the cache"
            )
        if process.stdout is not None:
            process.stdout.close()

    def _describe(self, name: str) -> dict[str, Any]:
        node = self._nodes[name]
        arguments = {key: value for key, value in node.arguments.items() if value is not None}
        return {"name": name, "labels": dict(node.labels), "arguments": arguments}

    def _send(self, kind: str, **fields: Any) -> None:
        if self._state in {"off", "closed"}:
            return
        stamp = time.time_ns() // 1_000_000  # the time of the event, not of writing it
        line = json.dumps([kind, stamp, fields], default=str)
        if self._state == "keeps":
            self._kept.append(line)
        else:
            self._write(line)

    def _write(self, line: str) -> None:
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass  # the process has ended, and its reason was reported

    def _listen(self) -> None:
        if self._process is None or self._process.stdout is None:
            return
        for line in self._process.stdout:
            kind, text = json.loads(line)
            if kind == "run":
                self.run_id = text
            else:
                self._warned = True
                self._warn(text)


@contextmanager
def tracking(root: Path) -> Iterator[Tracker]:
    """Yield a tracker, and close its run as the block ends: finished, failed or killed."""
    tracker = Tracker(root)
    try:
        yield tracker
    except BaseException as error:
        tracker.close("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    tracker.close("FINISHED")
