"""Running commands on this machine: one command per slot, GPUs handed out one by one.

There are ``jobs`` slots on the cores. Where there are GPUs, the tasks that use one have slots of
their own, ``gpu_jobs`` per GPU (or group of GPUs that train together) and at most ``jobs``, and
the others run beside them on the cores.

What a command finds in its environment:

    SMS_THREADS, OMP_NUM_THREADS, ...   1, or SMS_THREADS: never a share of the cores, for results
                                        depend on it
    OMP_WAIT_POLICY=PASSIVE             threads that wait give their core to other stages
    CUDA_VISIBLE_DEVICES                its GPU, or SMS_GPUS_PER_STAGE of them, where there are any;
                                        empty for a task that uses none
    SMS_EVENTS                          the file for its events, one JSON object a line
    SMS_PYTHON                          the python that runs the driver
    DVC_ROOT, DVC_STAGE                 as under ``dvc repro``
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.process import gpus_per_stage, positive
from pipeline.run.command import as_module, in_shell
from pipeline.run.fork_server_client import Server
from pipeline.run.interfaces import Event, Exit, Task
from pipeline.run.machine import gpus, grouped, shared_environment

# Third-party modules that are slow to import. The first optimiser of a process and its first dispatch
# mode (the count of operations) import torch._dynamo, which takes nearly as long as torch itself.
PRELOAD = ("torch", "torch._dynamo", "numpy", "safetensors.torch")
MISSING = -signal.SIGKILL  # the status of a worker that disappeared without one


class LocalEngine:
    """The processes of one machine, as a `pipeline.run.interfaces.Engine`.

    A command ``stages/run NAME ...`` is forked from a server that has imported ``preload``
    already; everything else, and everything after that server's death, goes through a shell.
    """

    def __init__(
        self,
        root: Path,
        jobs: int,
        preload: Sequence[str] | None = PRELOAD,
        *,
        gpu_jobs: int = 1,
    ) -> None:
        self.root, self.preload = root, preload
        self.folder = root / ".dvc" / "tmp" / "sms"
        for part in ("logs", "events"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        self.jobs = jobs
        self.devices = grouped(gpus(os.environ), gpus_per_stage())
        per_device = positive("SMS_GPU_JOBS", gpu_jobs)
        self.gpu_slots = min(jobs, len(self.devices) * per_device)
        self.shared = shared_environment() | {"SMS_PYTHON": sys.executable}
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
        worker = Worker(name, task, self.folder / "events" / f"{name}.jsonl")
        worker.device = self._device() if task.gpu else ""
        self._launch(worker)
        self.tasks[name] = worker

    def wait(self, seconds: float) -> list[Event | Exit]:
        """Return the events and exits of workers, waiting at most ``seconds`` for an exit."""
        servers = [server for server in (self.warm, self.cold) if server]
        ready = select.select([server.channel for server in servers], [], [], seconds)[0]
        exits: list[Exit] = []
        for one in servers:
            if one.channel in ready:
                alive, replies = one.read()
                for reply in replies:
                    if "pid" in reply:
                        self.tasks[reply["name"]].pid = reply["pid"]
                    else:
                        exits.append(Exit(reply["name"], reply["status"]))
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
        for one in (self.warm, self.cold):
            if one:
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
        if worker.device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = worker.device
        log = self.log(worker.name)
        log.unlink(missing_ok=True)
        worker.reports.unlink(missing_ok=True)
        worker.position = 0
        what = as_module(worker.task.commands) if self.preload is not None else None
        if what and not self.warm:
            self.warm = Server(self.preload or (), self.shared, self.folder / "logs")
        if not what and not self.cold:
            self.cold = Server((), self.shared, self.folder / "logs")
        worker.server = self.warm if what else self.cold
        assert worker.server
        worker.server.ask(
            name=worker.name,
            folder=str(worker.task.folder),
            environment=environment,
            log=str(log),
            **(what or {"argv": in_shell(worker.task.commands)}),
        )

    def _restart_orphans(self, dead: "Server", ended: set[str]) -> list[Exit]:
        """Begin the workers of a dead server once more, through a shell; they died with it."""
        if dead is self.warm:
            self.warm, self.preload = None, None
        else:
            self.cold = None
        dead.close()
        exits = []
        for worker in list(self.tasks.values()):
            if worker.server is dead and worker.name not in ended:
                if worker.pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(worker.pid, signal.SIGKILL)
                worker.retries += 1
                if worker.retries > 1:
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
        """Return the events written since the last call; half a line waits for its rest."""
        if not self.reports.exists():
            return []
        with self.reports.open("rb") as file:
            file.seek(self.position)
            text = file.read()
        complete = text[: text.rfind(b"\n") + 1]
        self.position += len(complete)
        found = []
        for line in complete.splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [fields for fields in found if isinstance(fields, dict)]
