"""The nodes of a Ray cluster that run stages: their actors, versions and resources."""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.process import GPUS_PER_STAGE
from pipeline.run import ray_files, ray_node
from pipeline.run.interfaces import Task
from pipeline.run.outside_files import Reader
from pipeline.run.ray_cluster import Cluster
from pipeline.run.ray_objects import Objects

REFRESH = 5.0  # seconds between looks at the nodes of the cluster
ANSWER = 60.0  # seconds in which an actor must start and answer
KILLED = 5.0  # seconds in which a living node kills a stage
SILENT = 30.0  # seconds without an answer after which the cluster is gone; Ray exits after 60


class Hosts:
    """One actor for each node; `refresh` takes in nodes that join, and drops those that leave."""

    def __init__(
        self, cluster: Cluster, root: Path, needs: Mapping[bool, tuple[float, float]]
    ) -> None:
        """Start the actors.

        Args:
            cluster: the connection
            root: the repository
            needs: CPUs and GPUs of a stage that uses a GPU, and of one that does not

        Raises:
            UserError: a node has other versions, or none is large enough

        """
        self.cluster, self.ray, self.root, self.needs = cluster, cluster.ray, root, needs
        self.prefix = f"sms-{uuid.uuid4().hex[:12]}-"
        self.actors: dict[str, Any] = {}  # by node
        self.resources: dict[str, dict[str, float]] = {}
        self.names: dict[str, str] = {}  # host names, also of nodes that are gone
        self.polls: dict[Any, str] = {}  # pending reports -> node
        self.shared = True  # whether all nodes see the repository's folder
        self.objects = Objects(self.ray, root)
        self.address = str(self.ray.get_runtime_context().gcs_address)
        self.looked, self.answered = 0.0, time.monotonic()
        self.gone = False
        for module in (ray_node, ray_files):
            self.ray.cloudpickle.register_pickle_by_value(module)
        self.opened = False  # whether the first nodes have started
        self.refresh()
        self.opened = True
        self.with_gpus = any(node.get("GPU", 0) for node in self.resources.values())
        self._check_resources()

    def refresh(self, seconds: float = 0.0) -> None:
        """Look at the nodes, unless the last look was less than ``seconds`` ago.

        Raises:
            UserError: a new node does not fit, or the cluster is gone.
        """
        if seconds and time.monotonic() - self.looked < seconds:
            return
        self.looked = time.monotonic()
        if not self._answers():
            return
        alive = {node["NodeID"]: node for node in self.ray.nodes() if node["Alive"]}
        new = [node for node in alive if node not in self.actors]
        self.names |= {node: alive[node]["NodeManagerHostname"] for node in new}
        self.actors = {node: actor for node, actor in self.actors.items() if node in alive}
        if new:
            self._start(new)
        self.resources = {node: alive[node]["Resources"] for node in self.actors}

    def _answers(self) -> bool:
        """Say whether the cluster's tables can be asked; Ray itself would wait for a minute.

        Raises:
            UserError: they have not answered for long; those of this machine must answer at once.
        """
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            limit = SILENT if self.cluster.named else REFRESH
            if time.monotonic() - self.answered > limit or not self.opened:
                raise self.lost(error) from error
            return False
        self.answered = time.monotonic()
        return True

    def lost(self, error: Exception) -> UserError:
        """Return the sentence of a cluster that is gone."""
        self.gone = True
        return UserError(
            f"the Ray cluster {self.address} does not answer any more ({error}): all finished "
            "stages are kept; run again when it is back"
        )

    def _start(self, nodes: list[str]) -> None:
        """Start an actor on each of ``nodes``, and check that the node can run this project."""
        probe = self.root / ".dvc" / "tmp" / "sms" / f"probe-{uuid.uuid4().hex}"
        probe.touch()
        code = Path(__file__).parents[2]
        try:
            for node, actor in {node: self._actor(node) for node in nodes}.items():
                facts = self.ray.get(actor.facts.remote(str(probe)), timeout=ANSWER)
                sentence = mismatch(self.names[node], ray_node.versions(), facts)
                if sentence:
                    raise UserError(sentence)
                archive = None if facts["sees"] else self.objects.code(code)
                opened = actor.open.remote(
                    str(self.root), str(code), self.cluster.environment, archive
                )
                self.ray.get(opened, timeout=ANSWER)
                self.actors[node] = actor
                self.shared = self.shared and facts["sees"]
                self.poll(node)
        except (self.ray.exceptions.RayError, ValueError) as error:
            if not self.opened:  # a node that joins later may leave at once, and is asked again
                sentence = " ".join(str(error).split())[-300:]
                raise UserError(f"the Ray cluster cannot start this project: {sentence}") from error
        finally:
            probe.unlink()

    def _actor(self, node: str) -> Any:
        return (
            self.ray.remote(ray_node.Host)
            .options(
                name=self.prefix + node,
                num_cpus=0,
                num_gpus=0,
                max_concurrency=10_000,
                scheduling_strategy=self.on(node),
            )
            .remote()
        )

    def on(self, node: str, *, soft: bool = False) -> Any:
        """Return Ray's scheduling strategy for ``node`` alone; if ``soft``, while it is alive."""
        strategies = self.ray.util.scheduling_strategies
        return strategies.NodeAffinitySchedulingStrategy(node, soft=soft)

    def here(self) -> Any:
        """Return Ray's scheduling strategy for the driver's node alone."""
        return self.on(self._here())

    def _here(self) -> str:
        return str(self.ray.get_runtime_context().get_node_id())

    def poll(self, node: str) -> None:
        """Ask the actor of ``node`` for reports; the reply becomes a key of ``polls``."""
        self.polls[self.actors[node].reports.remote()] = node

    def portable(self, task: Task) -> dict[str, Any] | None:
        """Return the objects with which ``task`` may run on any node, None if only on this one."""
        if not self.see(task.outside):
            return None
        return {} if self.shared else self.objects.of(task.inputs, task.outside)

    def see(self, paths: Sequence[str]) -> bool:
        """Say whether all nodes see ``paths``, as the driver does; one that has gone is dropped."""
        if len(self.actors) == 1 or not paths:
            return True
        asked = {n: actor.sees.remote(str(self.root), paths) for n, actor in self.actors.items()}
        answers = []
        for node, reply in asked.items():
            try:
                answers.append(self.ray.get(reply))
            except self.ray.exceptions.RayTaskError:  # the node lives, and may not look
                answers.append(False)
            except self.ray.exceptions.RayError:
                del self.actors[node]
        return all(answers)

    def cancel(self, node: str, name: str) -> None:
        """Kill the stage ``name`` on ``node``, or on any if that is "", and wait for its end."""
        actors = [actor for each, actor in self.actors.items() if node in {each, ""}]
        killed = [actor.cancel.remote(name) for actor in actors]
        if killed:
            self.ray.wait(killed, num_returns=len(killed), timeout=KILLED, fetch_local=False)

    def stop(self, seconds: float) -> None:
        """End all stages; kill those that have not ended after ``seconds``."""
        ended = [] if self.gone else [a.stop.remote(seconds) for a in self.actors.values()]
        if ended:
            self.ray.wait(ended, num_returns=len(ended), timeout=seconds + 5)
        self.actors.clear()
        self.polls.clear()

    def cpus(self) -> float:
        """Return the CPUs of all nodes."""
        return sum(node.get("CPU", 0) for node in self.resources.values())

    def slots(self, *, gpu: bool) -> int:
        """Return how many stages of one kind the empty cluster can hold."""
        cpus, devices = self.needs[gpu]
        slots = 0
        for node in self.resources.values():
            fit = int(node.get("CPU", 0) / cpus + 1e-6)
            if gpu and self.with_gpus:
                each = int(1 / devices + 1e-6) if devices < 1 else 1
                fit = min(fit, int(node.get("GPU", 0) // max(devices, 1)) * each)
            slots += fit
        return slots

    def check_readers(self, readers: Callable[[], Iterable[Reader]]) -> None:
        """Refuse stages that must run on the driver's node, on which they could never start.

        Args:
            readers: returns the stages to run that read files outside the graph.

        Raises:
            UserError: one of them needs more CPUs or GPUs than that node has.

        """
        node = self.resources.get(self._here(), {})
        few: dict[bool, tuple[str, float, float]] = {}  # what the node lacks, the need, and it has
        for gpu, (cpus, devices) in self.needs.items():
            if node.get("CPU", 0) < cpus:
                few[gpu] = "CPU", cpus, node.get("CPU", 0)
            elif gpu and self.with_gpus and node.get("GPU", 0) < devices:
                few[gpu] = "GPU", max(devices, 1), node.get("GPU", 0)
        for stage in readers() if few else ():
            if stage.gpu in few and not self.see(stage.paths):
                what, need, has = few[stage.gpu]
                raise UserError(
                    f"stage {stage.name} reads {', '.join(stage.paths)}, which not all nodes of "
                    f"the Ray cluster see, so that it must run on the driver's node, but that has "
                    f"{has:g} {what}s and the stage needs {need:g}: put the files under an "
                    f"absolute path that all nodes see, or run the driver on a node with {what}s"
                )

    def _check_resources(self) -> None:
        """Refuse a cluster on which some stages could never start."""
        asked = os.environ.get(GPUS_PER_STAGE) or os.environ.get("SMS_GPU_JOBS")
        if self.with_gpus or (asked and self.cluster.named):
            most = int(max(node.get("GPU", 0) for node in self.resources.values()))
            need = max(1, round(self.needs[True][1]))
            if most < need:
                raise UserError(
                    f"{GPUS_PER_STAGE} or SMS_GPU_JOBS is set, so that a node of the Ray cluster "
                    f"must have {need} GPUs, but the largest has {most}: unset them, or add GPUs"
                )
        for gpu, (cpus, _) in self.needs.items():
            if not self.slots(gpu=gpu):
                raise UserError(
                    f"a stage needs {cpus:g} CPUs (SMS_THREADS times {GPUS_PER_STAGE}), but no "
                    "node of the Ray cluster has as many: lower them, or add CPUs"
                )


def mismatch(node: str, here: Mapping[str, str], there: Mapping[str, Any]) -> str | None:
    """Return a sentence on why ``node`` cannot run stages of the driver, or None if it can."""
    for package, version in here.items():
        if there[package] != version:
            return (
                f"node {node} of the Ray cluster has {package} {there[package]}, but the driver "
                f"has {version}: results depend on it; install the same version on all nodes"
            )
    return None
