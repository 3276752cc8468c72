"""The driver's side of MLflow: tells a second process what happens and never waits for it."""

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
from pathlib import Path
from typing import Any, Literal, Protocol

from pipeline.track.summary import flatten, headline

Outcome = Literal["ran", "cached", "failed", "skipped"]
Status = Literal["FINISHED", "FAILED", "KILLED"]


class Node(Protocol):
    """What tracking needs to know of a node of the graph."""

    @property
    def name(self) -> str:
        """The stage's name, which is also its folder under artifacts/."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The flags of the stage's command line and their values."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Kind, methods, phase, candidate, seed and m, as far as they apply."""


def _to_stderr(sentence: str) -> None:
    sys.stderr.write(f"warning: {sentence}\n")


def _plain(value: Any) -> str | float | None:
    if value is None or isinstance(value, bool | str):
        return None if value is None else str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):  # the exact numbers are with the nodes
        return round(float(value), 4) if math.isfinite(value) else None
    return str(value)


def location(root: Path) -> tuple[Path, str, str | None]:
    """Return the folder, address and artifact address that the repository at ``root`` logs to.

    ``MLFLOW_TRACKING_URI`` wins; otherwise it is mlflow.db in the main repository, which DVC
    names in ``DVC_ROOT`` also for experiments that run in a temporary copy of it.
    """
    home = Path(os.environ.get("DVC_ROOT") or root).resolve()
    address = os.environ.get("MLFLOW_TRACKING_URI")
    if address:
        return home, address, None
    return home, f"sqlite:///{home / 'mlflow.db'}", (home / "mlartifacts").as_uri()


class Tracker:
    """One MLflow run per execution of the graph, with one nested run per node.

    A listener of ``pipeline.run.execute``. MLflow lives in a process of its own
    (``pipeline.track.writer``), fed with JSON lines: importing it takes seconds that the driver
    does not lose, a server that hangs holds nothing up, and when the driver is killed that
    process still closes the runs. Whatever fails there costs one sentence through ``warn``,
    never a stage. ``SMS_MLFLOW=0`` switches tracking off.

    That process starts with the first stage that is run, or at ``start``; what comes before is
    kept until then. A run that ends in ``drop`` before starts none.
    """

    def __init__(self, root: Path, warn: Callable[[str], None] = _to_stderr) -> None:
        self._root = root.resolve()
        self._warn = warn
        self._nodes: Mapping[str, Node] = {}
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._early: list[str] = []  # messages to a process that has not been started
        self._off = os.environ.get("SMS_MLFLOW") == "0"
        self.run_id: str | None = None
        self.complete = True  # whether all that was sent has been written

    def start(self) -> None:
        """Start the writing process, as early as possible: it needs seconds to load MLflow."""
        if self._process is not None or self._off:
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
            cwd=home,  # so that a relative address means the main repository in every experiment
            env=env,
            start_new_session=True,  # Ctrl-C is the driver's to handle
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        early, self._early = self._early, []
        for line in early:
            self._write(line)

    def drop(self) -> None:
        """Log nothing of this run, if nothing has been started."""
        self._early.clear()

    def open(self, nodes: Mapping[str, Node], params: Mapping[str, Any]) -> None:
        """Open the parent run of the graph of ``nodes`` with all its ``params``, which may nest."""
        self._nodes = nodes
        self._send("open", root=str(self._root), params=dict(flatten(params, ".")))

    def started(self, name: str) -> None:
        """Open the run of a node that begins to work."""
        self.start()
        self._send("started", node=self._describe(name))

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Log what a running node reported, as curves over its epochs."""
        self._send("event", name=name, fields=dict(fields))

    def finished(self, name: str, outcome: Outcome, seconds: float) -> None:
        """Close the run of a node, or add that of one whose result came from the cache."""
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
        note = headline(plain)
        self._send("report", folder=str(folder.resolve()), rows=plain, note=note)

    def register(
        self, name: str, model: Path, data: Path, digest: str, tags: Mapping[str, Any]
    ) -> None:
        """Register the soup in the folder ``model`` as the next version of ``name``.

        Nothing happens when a version with the same DVC hash ``digest`` is there already.
        """
        self._send(
            "register",
            name=name,
            model=str(model.resolve()),
            data=str(data.resolve()),
            digest=digest,
            tags={key: str(value) for key, value in tags.items()},
        )

    def close(self, status: Status = "FINISHED") -> None:
        """End the runs with ``status`` and wait until everything is written."""
        if self._early:
            self.start()
        if self._process is None or self._listener is None:
            return
        self._send("close", status=status)
        process, self._process = self._process, None
        self._off = True
        try:
            if process.stdin is not None:
                process.stdin.close()
        except BrokenPipeError:
            pass  # it stopped before; its reason was passed on
        self.complete = process.wait() == 0
        self._listener.join()
        if process.stdout is not None:
            process.stdout.close()

    def _describe(self, name: str) -> dict[str, Any]:
        node = self._nodes[name]
        arguments = {key: value for key, value in node.arguments.items() if value is not None}
        return {"name": name, "labels": dict(node.labels), "arguments": arguments}

    def _send(self, what: str, **fields: Any) -> None:
        if self._off:
            return
        stamp = time.time_ns() // 1_000_000  # when it happened, not when it is written
        self._write(json.dumps([what, stamp, fields], default=str))

    def _write(self, line: str) -> None:
        if self._process is None:
            self._early.append(line)
            return
        if self._process.stdin is None:
            return
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass  # it stopped before; its reason was passed on

    def _listen(self) -> None:
        if self._process is None or self._process.stdout is None:
            return
        for line in self._process.stdout:
            what, text = json.loads(line)
            if what == "run":
                self.run_id = text
            else:
                self._warn(text)


@contextmanager
def tracking(root: Path) -> Iterator[Tracker]:
    """Give a tracker, and close its run as the block ends: finished, failed or killed."""
    tracker = Tracker(root)
    try:
        yield tracker
    except BaseException as error:
        tracker.close("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    tracker.close("FINISHED")
