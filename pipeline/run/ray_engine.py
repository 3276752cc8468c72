"""Runs the commands of stages on a Ray cluster.

A stage waits for its CPUs and GPUs as a Ray task, its lease; the node on which the lease is placed
runs the commands in its one actor (pipeline/run/ray_node.py). The order of stages is the
scheduler's: no more leases are asked for than the cluster can hold, and none while one waits, as
happens where others use the cluster. A stage that is lost runs again, on another node if there is
one: where its node, the actor or the lease is gone, where its process was killed, or where the disk
of a node with a folder of its own is full.

Nodes that see the repository's folder work in it. To all others the inputs go as objects, each once
(pipeline/run/ray_objects.py), and log and outputs come back at the end.
"""

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.run import ray_node
from pipeline.run.interfaces import Event, Exit, Task
from pipeline.run.local import MISSING
from pipeline.run.machine import cores, default_jobs, demand, gpus
from pipeline.run.outside_files import Reader
from pipeline.run.ray_cluster import Cluster, named
from pipeline.run.ray_hosts import REFRESH, Hosts
from pipeline.storage import disk_space

ATTEMPTS = 3  # times that a stage may start; it was lost each time but the last
PATIENCE = 0.5  # seconds that a lease may wait before no other is asked for


class RayEngine:
    """A Ray cluster, as a `pipeline.run.interfaces.Engine`."""

    def __init__(
        self,
        root: Path,
        jobs: int | None,
        *,
        gpu_jobs: int = 1,
        readers: Callable[[], Iterable[Reader]] = tuple,
    ) -> None:
        """Connect to the cluster and start an actor on each node.

        Raises:
            UserError: Ray is not installed, or the cluster cannot be reached or does not fit.
        """
        self.root = root
        self.logs = root / ".dvc" / "tmp" / "sms" / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.needs = {gpu: demand(gpu=gpu, gpu_jobs=gpu_jobs) for gpu in (True, False)}
        if jobs is None and (os.environ.get("SMS_JOBS") or not named()):
            jobs = default_jobs()
        self.jobs = jobs or sys.maxsize
        self.leases: dict[Any, str] = {}  # pending leases -> stage
        self.tasks: dict[str, Lease] = {}
        self.cluster = Cluster(*self._local_size(jobs or cores()))
        self.ray = self.cluster.ray
        try:
            self.hosts = Hosts(self.cluster, root, self.needs)
            self.hosts.check_readers(readers)
        except BaseException:
            self.cluster.close()
            raise
        self.lease = self.ray.remote(ray_node.lease)

    def _local_size(self, jobs: int) -> tuple[float, int]:
        """Return CPUs and GPUs of a cluster of this machine, as many as are used without Ray."""
        devices = len(gpus(os.environ))
        if not devices:
            return jobs * self.needs[True][0], 0
        together = min(jobs, int(devices / self.needs[True][1] + 1e-6))
        return jobs * self.needs[False][0] + together * self.needs[True][0], devices

    def free(self, *, gpu: bool) -> bool:
        """Say whether the cluster has room for such a task, as far as is known here."""
        self.hosts.refresh(REFRESH)
        split = self.hosts.with_gpus
        alike = sum(not split or lease.task.gpu == gpu for lease in self.tasks.values())
        used = sum(lease.task.cpus for lease in self.tasks.values())
        limit = time.monotonic() - PATIENCE
        return (
            alike < min(self.jobs, self.hosts.slots(gpu=gpu))
            and used + self.needs[gpu][0] <= self.hosts.cpus()
            and all(lease.node or lease.asked > limit for lease in self.tasks.values())
        )

    def log(self, name: str) -> Path:
        """Return the file with the output of stage ``name``."""
        return self.logs / f"{name}.log"

    def start(self, name: str, task: Task) -> None:
        """Ask for a lease for ``task``; returns at once."""
        self.log(name).unlink(missing_ok=True)
        self.tasks[name] = Lease(task)
        self._ask(name)

    def _ask(self, name: str) -> None:
        lease = self.tasks[name]
        lease.attempt += 1
        lease.node, lease.asked, lease.seen = "", time.monotonic(), 0
        task = lease.task
        objects = self.hosts.portable(task)
        fields = asdict(task) | {"folder": str(task.folder), "objects": objects or {}}
        pending = self.lease.options(
            name=name,
            num_cpus=task.cpus,
            num_gpus=task.gpus if self.hosts.with_gpus else 0,
            max_retries=0,
            scheduling_strategy=self._place(lease) if objects is not None else self.hosts.here(),
        ).remote(self.hosts.prefix, name, lease.attempt, fields)
        self.leases[pending] = name

    def _place(self, lease: "Lease") -> Any:
        """Return Ray's scheduling strategy: after a loss the other node with the fewest stages."""
        others = [node for node in self.hosts.actors if node not in lease.lost]
        if not lease.lost or not others:
            return "SPREAD"
        busy = Counter(other.node for other in self.tasks.values())
        return self.hosts.on(min(others, key=lambda node: busy[node]), soft=True)

    def wait(self, seconds: float) -> list[Event | Exit]:
        """Return the events and exits of stages, waiting at most ``seconds`` for one."""
        self.hosts.refresh(REFRESH)
        pending = [*self.leases, *self.hosts.polls]
        if not pending:  # all nodes are gone
            time.sleep(seconds)
            return []
        ready = self._ready(pending, seconds)
        reports: list[Event | Exit] = []
        for reply in ready:
            if reply in self.hosts.polls:
                reports += self._reports(self.hosts.polls.pop(reply), reply)
        for reply in ready:
            if reply in self.leases:
                reports += self._ended(self.leases.pop(reply), reply)
        return reports

    def _ready(self, pending: list[Any], seconds: float) -> list[Any]:
        """Return the replies that are there, waiting at most ``seconds`` for one."""
        try:
            ready, _ = self.ray.wait(pending, timeout=seconds, fetch_local=False)
            if ready:
                ready, _ = self.ray.wait(pending, num_returns=len(pending), timeout=0)
        except (OSError, self.ray.exceptions.RaySystemError) as error:  # Ray here was killed
            raise self.hosts.lost(error) from error
        return list(ready)

    def _reports(self, node: str, reply: Any) -> list[Event | Exit]:
        """Return the events of stages on ``node``, and ask for the next."""
        try:
            news = self.ray.get(reply)
            self.hosts.poll(node)
        except (self.ray.exceptions.RayError, KeyError):  # the leases of this node end as well
            self.hosts.actors.pop(node, None)
            return []
        events: list[Event | Exit] = []
        for name, attempt, number, fields in news:
            lease = self.tasks.get(name)
            if lease and lease.attempt == attempt:
                lease.node = node
                if number > lease.seen:
                    lease.seen = number
                    events.append(Event(name, fields))
        return events

    def _ended(self, name: str, reply: Any) -> list[Event | Exit]:
        """Return the remaining events and the exit of a stage, or run it again if it was lost."""
        lease = self.tasks[name]
        try:
            end = self.ray.get(reply)
        except self.ray.exceptions.RayError as error:
            return self._lost(name, str(error))
        if end is None:  # the node has no actor yet
            lease.attempt -= 1
            self.hosts.refresh()
            self._ask(name)
            return []
        status, events, log, outputs = end
        if log is not None:
            self.log(name).write_bytes(log)
        if status == MISSING:
            return self._lost(name, f"killed by signal {-status}")
        if status == disk_space.STATUS and log:  # not the driver's disk
            return self._lost(name, log.decode(errors="replace"), 1)
        if outputs is not None:
            status = self.hosts.objects.keep(outputs, lease.task.outputs)
        del self.tasks[name]
        return [*(Event(name, fields) for fields in events[lease.seen :]), Exit(name, status)]

    def _lost(self, name: str, reason: str, status: int = MISSING) -> list[Event | Exit]:
        """Run a lost stage again; after ``ATTEMPTS`` it ends with ``status``."""
        lease = self.tasks[name]
        self.hosts.cancel(lease.node, name)
        lease.lost.add(lease.node)
        self._clear(lease.task)
        if lease.attempt < ATTEMPTS:
            self._ask(name)
            return []
        names = self.hosts.names  # a stage may be lost before it has said on which node it runs
        node = names.get(lease.node, "unknown" if len(names) > 1 else "".join(names.values()))
        lines = [line.strip() for line in reason.splitlines() if line.strip()]
        with self.log(name).open("a", encoding="utf-8") as log:
            log.write(f"lost {ATTEMPTS} times, at last on node {node}: {lines[-1]}\n")
        del self.tasks[name]
        return [Exit(name, status)]

    def _clear(self, task: Task) -> None:
        """Remove the outputs of a run that was lost after it had written them."""
        for output in task.outputs:
            shutil.rmtree(self.root / output, ignore_errors=True)
            with suppress(OSError):
                (self.root / output).unlink()

    def stop(self, seconds: float) -> None:
        """End all stages, by SIGKILL those that are not done ``seconds`` after SIGTERM; leave."""
        for pending, name in self.leases.items():
            if not self.tasks[name].node and not self.hosts.gone:
                self.ray.cancel(pending, force=True)
        self.hosts.stop(seconds)
        self.tasks.clear()
        self.leases.clear()
        self.cluster.close()


class Lease:
    """A stage that runs or waits for room."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.attempt = 0
        self.node = ""  # unknown until it has begun
        self.lost: set[str] = set()  # nodes on which it was lost
        self.asked = 0.0
        self.seen = 0  # events that were passed on
