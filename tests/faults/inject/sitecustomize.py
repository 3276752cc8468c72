"""Python imports this in every process of a trial, where tests/faults/inject is on its path.

It notes the process's role in the file ``roles``, and carries out ``plan.json``: a signal at the
n-th write of a role to a place, a limit of the workers' memory, or a record of all writes. Writes
are Python's audit events (PEP 578), raised before the operation, and statements of SQLite.
"""

import json
import os
import resource
import signal
import sys
import threading
from typing import Any

FOLDER = os.environ.get("SMS_FAULTS", "")
ROOT = os.environ.get("SMS_FAULTS_ROOT", "")
ROLES = (
    ("pipeline.run.fork_server", "server"),
    ("pipeline.track.writer", "writer"),
    ("stages.all", "driver"),
    ("repro", "dvc"),
    ("push", "dvc"),
    ("pull", "dvc"),
)
PLACES = (
    ("stages/dvc.lock", "lock"),
    ("stages/.dvc.lock", "lock"),
    ("dvc.lock", "root lock"),
    ("stages/", "graph"),
    (".dvc/cache/runs", "run cache"),
    (".dvc/cache", "cache"),
    (".dvc/tmp", "tmp"),
    ("reports", "reports"),
    ("artifacts", "artifacts"),
    ("mlflow.db", "mlflow.db"),
    ("mlartifacts", "mlartifacts"),
)
STATEMENTS = ("INSERT", "UPDATE", "COMMIT")
NUMBER_OF_PATH = {"os.rename": 1, "os.link": 1, "os.symlink": 1}
PATHS = ("os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate")


class Process:
    """A process of a trial: its role, and its part of the plan."""

    def __init__(self, role: str) -> None:
        self.plan: dict[str, Any] = {}
        if os.path.exists(f"{FOLDER}/plan.json"):
            with open(f"{FOLDER}/plan.json", encoding="utf-8") as file:
                self.plan = json.load(file)
        self.become(role)

    def become(self, role: str) -> None:
        """Note the role of this process, or of this fork."""
        self.role = role
        append("roles", f"{os.getpid()} {role}\n")
        if role == "worker" and "megabytes" in self.plan:
            limit = memory() + self.plan["megabytes"] * 1_000_000
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            append("fired", f"{os.getpid()} memory\n")

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take an audit event."""
        if place := place_of(written(event, arguments)):
            self.at(place)

    def watch_databases(self) -> None:
        """Hear the statements of the databases that this process opens."""
        import sqlite3
        from sqlite3 import dbapi2

        connect = sqlite3.connect

        def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*arguments, **options)
            connection.set_trace_callback(self.statement)
            return connection

        sqlite3.connect = dbapi2.connect = watched

    def statement(self, text: str) -> None:
        """Take a statement of MLflow's database."""
        if text.startswith(STATEMENTS):
            self.at("mlflow.db", in_callback=True)

    def at(self, place: str, *, in_callback: bool = False) -> None:
        """Record a write, or send the signal if this is the write of the plan.

        SQLite drops the exceptions of its callbacks, and so the KeyboardInterrupt of a SIGINT that
        arrives in one: it is sent a moment later.
        """
        point = f"{self.role}: {place}"
        if self.plan.get("record"):
            append("points", f"{point}\n")
        if point == self.plan.get("point") and append("count", ".") == self.plan["at"]:
            target = self.plan["target"]
            pid = last(target)
            if pid:
                append("fired", f"{pid} {target}\n")
                send = os.killpg if target == "group" else os.kill
                arguments = (pid, signal.Signals[self.plan["signal"]])
                if in_callback and pid == os.getpid():
                    threading.Timer(0.001, send, arguments).start()
                else:
                    send(*arguments)


def written(event: str, arguments: tuple[Any, ...]) -> Any:
    """Return the path that an event is about to change."""
    if event == "open":
        flags = arguments[2]
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        return arguments[0] if writes else None
    if event in PATHS:
        return arguments[0]
    return arguments[NUMBER_OF_PATH[event]] if event in NUMBER_OF_PATH else None


def place_of(path: Any) -> str | None:
    """Return the place of a path under the repository."""
    if not isinstance(path, str | os.PathLike):
        return None
    absolute = os.path.abspath(os.fspath(path))
    if not isinstance(absolute, str) or not absolute.startswith(f"{ROOT}/"):
        return None
    relative = absolute[len(ROOT) + 1 :]
    return next((place for start, place in PLACES if relative.startswith(start)), None)


def append(name: str, text: str) -> int:
    """Append to a file of the trial, and return its new size."""
    file = os.open(f"{FOLDER}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(file, text.encode())
        return os.lseek(file, 0, os.SEEK_CUR)
    finally:
        os.close(file)


def last(role: str) -> int | None:
    """Return the last process with a role that is alive; of a group, its leader dvc."""
    wanted = "dvc" if role == "group" else role
    with open(f"{FOLDER}/roles", encoding="utf-8") as file:
        pids = [int(line.split()[0]) for line in file if line.split()[1] == wanted]
    return next((pid for pid in reversed(pids) if of_this_trial(pid)), None)


def of_this_trial(pid: int) -> bool:
    """Return whether a process lives and is one of the trial's: the kernel uses numbers again."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"SMS_FAULTS={FOLDER}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def memory() -> int:
    """Return the address space of this process in bytes."""
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def install() -> None:
    """Watch this process, if it has a role."""
    words = sys.orig_argv
    role = next((role for word, role in ROLES if word in words), None)
    if role is None:
        return
    process = Process(role)
    if role == "server":
        os.register_at_fork(after_in_child=lambda: process.become("worker"))
    if role == "writer":
        process.watch_databases()
    sys.addaudithook(process.hear)


if FOLDER:
    install()
