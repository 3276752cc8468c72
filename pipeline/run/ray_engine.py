"""Runs the commands of stages on a Ray cluster whose nodes see the repository's folder.

A stage waits for its CPUs and GPUs as a Ray task, its lease; the node on which the lease is placed
runs the commands in its one actor (pipeline/run/ray_node.py). The order of stages is the
scheduler's: no more leases are asked for than the cluster can hold, and none while one waits, as
happens where others use the cluster. A stage that is lost with its node runs again elsewhere.
"""

import os
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.process import GPUS_PER_STAGE
from pipeline.run import ray_node
from pipeline.run.interfaces import Event, Exit, Task
from pipeline.run.local import MISSING
from pipeline.run.machine import cores, default_jobs, demand, gpus
from pipeline.run.ray_cluster import ADDRESS, Cluster

ATTEMPTS = 3  # times that a stage may start; the node of each but the last was lost
REFRESH = 5.0  # seconds between looks at the nodes of the cluster
PATIENCE = 0.5  # seconds that a lease may wait before no other is asked for
ANSWER = 60.0  # seconds in which an actor must start and answer


class RayEngine:
    """A Ray cluster, as a `pipeline.run.interfaces.Engine`."""

    def __init__(self, root: Path, jobs: int | None, *, gpu_jobs: int = 1) -> None:
        """Connect to the cluster and start an actor on each node.

        Raises:
            UserError: Ray is not installed, or the cluster cannot be reached or does not fit.
        """
        self.root = root
        self.folder = root / ".dvc" / "tmp" / "sms"
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        self.needs = {gpu: demand(gpu=gpu, gpu_jobs=gpu_jobs) for gpu in (True, False)}
        if jobs is None and (os.environ.get("SMS_JOBS") or not os.environ.get(ADDRESS)):
            jobs = default_jobs()
        self.jobs = jobs or sys.maxsize
        self.cluster = Cluster(*self._local_size(jobs or cores()))
        self.ray = self.cluster.ray
        self.prefix = f"sms-{uuid.uuid4().hex[:12]}-"
        self.nodes: dict[str, dict[str, float]] = {}  # resources by node
        self.names: dict[str, str] = {}  # host names, also of nodes that are gone
        self.hosts: dict[str, Any] = {}
        self.polls: dict[Any, str] = {}  # pending reports -> node
        self.leases: dict[Any, str] = {}  # pending leases -> stage
        self.tasks: dict[str, Lease] = {}
        self.exits: list[Exit] = []
        self.refreshed = 0.0
        try:
            self._prepare()
        except BaseException:
            self.cluster.close()
            raise

    def _local_size(self, jobs: int) -> tuple[float, int]:
        """Return CPUs and GPUs of a cluster of this machine: room for what runs without Ray."""
        devices = len(gpus(os.environ))
        of_gpus = min(jobs, int(devices / self.needs[True][1])) if devices else 0
        wanted = jobs * self.needs[not devices][0] if not devices else jobs * self.needs[False][0]
        return wanted + of_gpus * self.needs[True][0], devices

    def _prepare(self) -> None:
        self.ray.cloudpickle.register_pickle_by_value(ray_node)
        self.actor = self.ray.remote(ray_node.Host)
        self.lease = self.ray.remote(ray_node.lease)
        self._refresh()
        self._check_resources()

    def _refresh(self) -> None:
        """Take in the nodes of the cluster; start an actor on those that are new."""
        self.refreshed = time.monotonic()
        alive = {node["NodeID"]: node for node in self.ray.nodes() if node["Alive"]}
        new = [node for node in alive if node not in self.hosts]
        self.names |= {node: alive[node]["NodeManagerHostname"] for node in new}
        self.hosts = {node: host for node, host in self.hosts.items() if node in alive}
        self._start_hosts(new)
        self.nodes = {node: alive[node]["Resources"] for node in self.hosts}

    def _start_hosts(self, nodes: list[str]) -> None:
        """Start an actor on each of ``nodes``, and check that the node can run this project.

        Raises:
            UserError: a node has other versions, or does not see the folder.
        """
        hosts = {node: self._host(node) for node in nodes}
        probe = self.folder / f"probe-{uuid.uuid4().hex}"
        probe.touch()
        try:
            replies = {node: host.facts.remote(str(probe)) for node, host in hosts.items()}
            self._await(list(replies.values()), "start on its nodes")
            here = ray_node.versions()
            for node, reply in replies.items():
                sentence = mismatch(self.names[node], here, self.ray.get(reply), self.root)
                if sentence:
                    raise UserError(sentence)
        finally:
            probe.unlink()
        environment, code = self.cluster.environment, str(Path(__file__).parents[2])
        opened = [host.open.remote(str(self.root), code, environment) for host in hosts.values()]
        self._await(opened, "import the project on its nodes")
        self.hosts |= hosts
        self.polls |= {host.reports.remote(): node for node, host in hosts.items()}

    def _host(self, node: str) -> Any:
        affinity = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        return self.actor.options(
            name=self.prefix + node,
            num_cpus=0,
            num_gpus=0,
            max_concurrency=10_000,
            scheduling_strategy=affinity(node, soft=False),
        ).remote()

    def _await(self, replies: list[Any], action: str) -> None:
        try:
            self.ray.get(replies, timeout=ANSWER)
        except self.ray.exceptions.RayError as error:
            sentence = " ".join(str(error).split())[-300:]
            raise UserError(f"the Ray cluster does not {action}: {sentence}") from error

    def _check_resources(self) -> None:
        """Refuse a cluster on which some stages could never start."""
        self.with_gpus = any(node.get("GPU", 0) for node in self.nodes.values())
        asked = os.environ.get(GPUS_PER_STAGE) or os.environ.get("SMS_GPU_JOBS")
        needs = self.needs[True][1]
        if self.with_gpus or (asked and self.cluster.named):
            most = int(max(node.get("GPU", 0) for node in self.nodes.values()))
            if most < needs:
                raise UserError(
                    f"{GPUS_PER_STAGE} or SMS_GPU_JOBS is set, so that a node of the Ray cluster "
                    f"must have {max(1, round(needs))} GPUs, but the largest has {most}: unset "
                    "them, or add GPUs"
                )
        for gpu in (True, False):
            if not self._slots(gpu=gpu):
                cpus = self.needs[gpu][0]
                raise UserError(
                    f"a stage needs {cpus:g} CPUs (SMS_THREADS times {GPUS_PER_STAGE}), but no "
                    "node of the Ray cluster has as many: lower them, or add CPUs"
                )

    def _slots(self, *, gpu: bool) -> int:
        """Return how many such stages the empty cluster can hold."""
        cpus, devices = self.needs[gpu]
        slots = 0
        for node in self.nodes.values():
            fit = int(node.get("CPU", 0) / cpus + 1e-6)
            if gpu and self.with_gpus:
                each = int(1 / devices + 1e-6) if devices < 1 else 1
                fit = min(fit, int(node.get("GPU", 0) // max(devices, 1)) * each)
            slots += fit
        return slots

    def free(self, *, gpu: bool) -> bool:
        """Say whether the cluster has room for such a task, as far as is known here."""
        if time.monotonic() - self.refreshed > REFRESH:
            self._refresh()
        alike = [t for t in self.tasks.values() if t.task.gpu == gpu or not self.with_gpus]
        used = sum(lease.task.cpus for lease in self.tasks.values())
        total = sum(node.get("CPU", 0) for node in self.nodes.values())
        limit = time.monotonic() - PATIENCE
        return (
            len(alike) < min(self.jobs, self._slots(gpu=gpu))
            and used + self.needs[gpu][0] <= total
            and all(lease.node or lease.asked > limit for lease in self.tasks.values())
        )

    def log(self, name: str) -> Path:
        """Return the file with the output of stage ``name``."""
        return self.folder / "logs" / f"{name}.log"

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
        here = self.ray.get_runtime_context().get_node_id()
        affinity = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        pending = self.lease.options(
            name=name,
            num_cpus=task.cpus,
            num_gpus=task.gpus if self.with_gpus else 0,
            max_retries=0,
            scheduling_strategy="SPREAD" if self._seen(task) else affinity(here, soft=False),
        ).remote(self.prefix, name, lease.attempt, asdict(task) | {"folder": str(task.folder)})
        self.leases[pending] = name

    def _seen(self, task: Task) -> bool:
        """Say whether all nodes see the data outside the graph that ``task`` reads."""
        paths = [str(self.root / path) for path in task.outside]
        if not paths or len(self.hosts) == 1:
            return True
        return all(self.ray.get([host.sees.remote(paths) for host in self.hosts.values()]))

    def wait(self, seconds: float) -> list[Event | Exit]:
        """Return the events and exits of stages, waiting at most ``seconds`` for one."""
        pending = [*self.leases, *self.polls]
        ready, _ = self.ray.wait(pending, timeout=seconds, fetch_local=False)
        if ready:
            ready, _ = self.ray.wait(pending, num_returns=len(pending), timeout=0)
        reports: list[Event | Exit] = []
        for reply in ready:
            if reply in self.polls:
                reports += self._reports(self.polls.pop(reply), reply)
        for reply in ready:
            if reply in self.leases:
                reports += self._ended(self.leases.pop(reply), reply)
        return reports

    def _reports(self, node: str, reply: Any) -> list[Event | Exit]:
        try:
            news = self.ray.get(reply)
        except self.ray.exceptions.RayError:  # the leases of this node end as well
            self.hosts.pop(node, None)
            return []
        self.polls[self.hosts[node].reports.remote()] = node
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
        lease = self.tasks[name]
        try:
            end = self.ray.get(reply)
        except self.ray.exceptions.RayError as error:
            return self._lost(name, error)
        if end is None:  # the node is newer than the last look
            lease.attempt -= 1
            self._refresh()
            self._ask(name)
            return []
        status, events = end
        del self.tasks[name]
        return [*(Event(name, fields) for fields in events[lease.seen :]), Exit(name, status)]

    def _lost(self, name: str, error: Exception) -> list[Event | Exit]:
        """Run a stage again whose node or actor is gone; give up after ``ATTEMPTS``."""
        lease = self.tasks[name]
        host = self.hosts.get(lease.node)
        if host:
            with suppress(self.ray.exceptions.RayError):
                self.ray.get(host.cancel.remote(name), timeout=ANSWER)
        if lease.attempt < ATTEMPTS:
            self._ask(name)
            return []
        node = self.names.get(lease.node, "unknown")
        with self.log(name).open("a", encoding="utf-8") as log:
            log.write(f"lost {ATTEMPTS} times, at last on node {node}: {_sentence(error)}\n")
        del self.tasks[name]
        return [Exit(name, MISSING)]

    def stop(self, seconds: float) -> None:
        """End all stages, by SIGKILL those that are not done ``seconds`` after SIGTERM; leave."""
        for pending in self.leases:
            if not self.tasks[self.leases[pending]].node:
                self.ray.cancel(pending, force=True)
        ended = [host.stop.remote(seconds) for host in self.hosts.values()]
        with suppress(self.ray.exceptions.RayError):
            self.ray.wait(ended, num_returns=len(ended), timeout=seconds + 5)
        self.tasks.clear()
        self.leases.clear()
        self.polls.clear()
        self.hosts.clear()
        self.cluster.close()


class Lease:
    """A stage that runs or waits for room."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.attempt = 0
        self.node = ""  # unknown until it has begun
        self.asked = 0.0
        self.seen = 0  # events that were passed on


def mismatch(
    node: str, here: Mapping[str, str], there: Mapping[str, Any], root: Path
) -> str | None:
    """Return a sentence on why ``node`` cannot run stages of the driver, or None if it can."""
    for package, version in here.items():
        if there[package] != version:
            return (
                f"node {node} of the Ray cluster has {package} {there[package]}, but the driver "
                f"has {version}: results depend on it; install the same version on all nodes"
            )
    if not there["sees"]:
        return (
            f"node {node} of the Ray cluster does not see the folder {root}: mount it there under "
            "the same path"
        )
    return None


def _sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
