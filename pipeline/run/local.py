"""Runs the commands of stages on this machine: one command per slot.

There are ``jobs`` slots on the cores. Where there are GPUs, the tasks that use one have other
slots, ``gpu_jobs`` per GPU (or group of GPUs that train together) and at most ``jobs``.

The environment of a command:

    SMS_THREADS, OMP_NUM_THREADS, ...   1, or SMS_THREADS; never a share of the cores, since
                                        results depend on it
    OMP_WAIT_POLICY=PASSIVE             waiting threads leave their core to other stages
    CUDA_VISIBLE_DEVICES                its GPU, or SMS_GPUS_PER_STAGE of them, where there are any;
                                        empty for a task that uses none
    SMS_EVENTS                          the file for its events, one JSON object a line
    SMS_PYTHON                          the Python that runs the driver
    DVC_ROOT, DVC_STAGE                 as under ``dvc repro``

Behind the prefix ``SMS_LAUNCH``, such as ``srun``, a stage is a job of another program. That gives
it cores and GPUs, and passes SIGTERM on to it; SIGKILL would leave the stage running.
"""

import contextlib
import json
import os
import re
import select
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.process import gpus_per_stage, positive
from pipeline.run import launch_prefix
from pipeline.run.fork_server import Server
from pipeline.run.interfaces import Event, Exit, Task
from pipeline.run.machine import gpus, grouped, shared_environment

# Third-party modules that are slow to import. The first optimiser of a process, and its first
# dispatch mode (the count of operations), import torch._dynamo, which takes as long as torch.
PRELOAD = ("torch", "torch._dynamo", "numpy", "safetensors.torch")
MISSING = -signal.SIGKILL  # the status of a worker that disappeared without one
LAUNCHER = "stages/run"
PLAIN = re.compile(r"[\w ./:=,+@%'\"-]+")  # a command line that no shell would change
ON_THE_CPU = {  # the scripts of stages/ that have no flag --device
    "compare",
    "corrupt",
    "evaluate",
    "export",
    "latency",
    "list_corruptions",
    "prepare",
    "prune",
    "prune_copies",
    "rewind",
    "shrink",
}
SHELL_FLAGS = {"bash": ["--noprofile", "--norc"], "zsh": ["--no-rcs"]}  # the same as DVC's


class LocalEngine:
    """The processes of one machine, as a `pipeline.run.interfaces.Engine`.

    A command ``stages/run NAME ...`` runs in a fork of a server that has imported ``preload``. All
    other commands, all commands after that server's death, and all behind a ``prefix`` run in a
    shell.
    """

    def __init__(
        self,
        root: Path,
        jobs: int,
        preload: Sequence[str] | None = PRELOAD,
        *,
        gpu_jobs: int = 1,
        prefix: Sequence[str] = (),
    ) -> None:
        self.root, self.prefix = root, prefix
        self.preload = None if prefix else preload
        self.folder = root / ".dvc" / "tmp" / "sms"
        for part in ("logs", "events"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        self.jobs = jobs
        self.devices = [] if prefix else grouped(gpus(os.environ), gpus_per_stage())
        per_device = positive("SMS_GPU_JOBS", gpu_jobs)
        self.gpu_slots = min(jobs, len(self.devices) * per_device)
        self.shared = shared_environment() | {"SMS_PYTHON": sys.executable}
        self.end = signal.SIGTERM if prefix else signal.SIGKILL
        self.warm: Server | None = None
        self.cold: Server | None = None
        self.tasks: dict[str, Worker] = {}

    def free(self, *, gpu: bool) -> bool:
        """Say whether a slot for such a task is free; without GPUs all tasks share the cores."""
        if not self.devices:
            return len(self.tasks) < self.jobs
        running = sum(worker.task.gpu == gpu for worker in self.tasks.values())
        return running < (self.gpu_slots if gpu else self.jobs)

    def log(self, name: str) -> Path:
        """Return the file with the output of stage ``name``."""
        return self.folder / "logs" / f"{name}.log"

    def start(self, name: str, task: Task) -> None:
        """Start ``task``; returns at once."""
        self.start_on(self._device() if task.gpu else "", name, task)

    def start_on(self, device: str | None, name: str, task: Task) -> None:
        """Start ``task`` on a GPU or a group of them, "" for none, None for any."""
        worker = Worker(name, task, self.folder / "events" / f"{name}.jsonl")
        worker.device = device
        self._launch(worker)
        self.tasks[name] = worker

    def servers(self) -> list[Server]:
        """Return the servers at work."""
        return [server for server in (self.warm, self.cold) if server]

    def wait(self, seconds: float) -> list[Event | Exit]:
        """Return the events and exits of workers, waiting at most ``seconds`` for an exit."""
        servers = self.servers()
        ready = select.select([server.channel for server in servers], [], [], seconds)[0]
        exits: list[Exit] = []
        for one in servers:
            if one.channel in ready:
                alive, replies = one.read()
                for reply in replies:
                    if "pid" in reply:
                        self.tasks[reply["name"]].pid = reply["pid"]
                    else:
                        exits.append(Exit(reply["name"], self._status(reply["status"])))
                if not alive:
                    exits += self._restart_orphans(one, {end.name for end in exits})
        events = [Event(w.name, fields) for w in self.tasks.values() for fields in w.events()]
        for end in exits:
            del self.tasks[end.name]
        return [*events, *exits]

    def stop(self, seconds: float) -> None:
        """End all workers, by SIGKILL those that are not done ``seconds`` after SIGTERM."""
        for worker in self.tasks.values():
            if worker.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal.SIGTERM)
        limit = time.monotonic() + seconds
        while any(worker.pid for worker in self.tasks.values()) and time.monotonic() < limit:
            self.wait(0.05)
        for one in self.servers():
            one.close()
        self.warm = self.cold = None
        self.tasks.clear()

    def _launch(self, worker: "Worker") -> None:
        worker.server, worker.pid = None, None
        environment = (
            os.environ
            | self.shared
            | {
                "DVC_ROOT": os.environ.get("DVC_ROOT", str(self.root)),
                "DVC_STAGE": worker.task.address,
                "SMS_EVENTS": str(worker.reports),
            }
        )
        if self.prefix:
            environment.pop("CUDA_VISIBLE_DEVICES", None)
        elif worker.device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = worker.device
        log = self.log(worker.name)
        log.unlink(missing_ok=True)
        worker.reports.unlink(missing_ok=True)
        worker.position = 0
        call = as_module(worker.task.commands) if self.preload is not None else None
        if call and not self.warm:
            self.warm = self._server(self.preload or ())
        if not call and not self.cold:
            self.cold = self._server(())
        worker.server = self.warm if call else self.cold
        assert worker.server
        before = launch_prefix.fill(self.prefix, worker.name, worker.task)
        worker.server.ask(
            name=worker.name,
            folder=str(worker.task.folder),
            environment=environment,
            log=str(log),
            end=self.end,
            **(call or {"argv": [*before, *in_shell(worker.task.commands)]}),
        )

    def _status(self, code: int) -> int:
        return launch_prefix.status(code) if self.prefix else code

    def _server(self, modules: Sequence[str]) -> Server:
        return Server(modules, self.shared, self.folder / "logs")

    def _restart_orphans(self, dead: "Server", ended: set[str]) -> list[Exit]:
        """Start the workers of a dead server once more, in a shell; they died with it."""
        if dead is self.warm:
            self.warm, self.preload = None, None
        else:
            self.cold = None
        dead.close()
        exits, orphans = [], [worker for worker in self.tasks.values() if worker.server is dead]
        orphans = [worker for worker in orphans if worker.name not in ended]
        sys.stderr.write(
            "warning: the process that starts stages ended early with status "
            f"{dead.process.returncode}, and with it {len(orphans)} stages, which "
            f"{'fail' if self.prefix else 'start once more'}\n"
        )
        for worker in orphans:
            if worker.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.pid, self.end)
            worker.retries += 1
            if worker.retries > 1 or self.prefix:  # the old job may still be at work
                exits.append(Exit(worker.name, MISSING))
            else:
                self._launch(worker)
        return exits

    def _device(self) -> str | None:
        """Return the GPU, or the group of them, with the fewest workers."""
        used = Counter(worker.device for worker in self.tasks.values())
        return min(self.devices, key=lambda device: used[device], default=None)


class Worker:
    """One running task."""

    def __init__(self, name: str, task: Task, reports: Path) -> None:
        self.name, self.task, self.reports = name, task, reports
        self.device: str | None = None
        self.server: Server | None = None
        self.pid: int | None = None
        self.retries = 0
        self.position = 0

    def events(self) -> list[dict[str, Any]]:
        """Return the events written since the last call, up to the last complete line."""
        if not self.reports.exists():
            return []
        with self.reports.open("rb") as file:
            file.seek(self.position)
            text = file.read()
        complete = text[: text.rfind(b"\n") + 1]
        self.position += len(complete)
        events = []
        for line in complete.splitlines():
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
        return [fields for fields in events if isinstance(fields, dict)]


def as_module(commands: Sequence[str]) -> dict[str, Any] | None:
    """Return module and arguments of ``stages/run NAME ...``, and None for any other command."""
    if len(commands) != 1 or not PLAIN.fullmatch(commands[0]):
        return None
    try:
        program, *words = shlex.split(commands[0])
    except ValueError:
        return None
    if program != LAUNCHER or not words or not words[0].isidentifier():
        return None
    return {"module": f"stages.{words[0]}", "arguments": words[1:]}


def uses_gpu(commands: Sequence[str]) -> bool:
    """Return whether a stage computes on a GPU where there is one.

    A script without the flag ``--device`` does not, nor one with ``--device cpu``. Any other
    command counts as one that does.
    """
    call = as_module(commands)
    if call is None:
        return True
    name, words = call["module"].removeprefix("stages."), call["arguments"]
    return name not in ON_THE_CPU and ("--device", "cpu") not in pairwise(words)


def in_shell(commands: Sequence[str]) -> list[str]:
    """Return the arguments that run ``commands`` in the user's shell, as DVC runs them."""
    shell = os.environ.get("SHELL") or "/bin/sh"
    line = commands[0] if len(commands) == 1 else " && ".join(f"({one}\n)" for one in commands)
    return [shell, *SHELL_FLAGS.get(Path(shell).name, []), "-c", line]
