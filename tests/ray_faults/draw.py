"""The faults of a campaign, as functions of a seed and the number of a trial."""

import random
from dataclasses import dataclass, replace

# Process that is killed with SIGKILL, or what else happens.
KINDS = (
    "worker",  # the process of a training, a fork of the fork server
    "fork server",
    "lease",  # the Ray task that holds the resources of a training
    "actor",  # the Ray process of a node that runs its stages
    "raylet",  # of the node without the driver
    "head",  # Ray's raylet on the driver's node, where the cluster's tables are too
    "keeper",  # the process of this project that holds the cluster of one machine
    "driver",
    "link",  # no packet passes for 20 s
    "disk",  # the temporary folder of the node without the driver is full
    "limit",  # the training or its actor is killed each time that it starts
)
BLIND = {"keeper": False, "disk": True}  # not drawn: one machine; a disk that stages use


@dataclass(frozen=True)
class Fault:
    """One fault; ``delay`` counts from the start of the first training on ``node``."""

    trial: int
    kind: str
    node: str  # a has the driver and the cluster's tables, b has neither
    blind: bool  # whether node b does not see the project's folder
    delay: float  # seconds
    quick: bool  # whether Ray gives a silent node up after some 10 s, and not a minute
    target: str  # of the kind "limit": worker or actor


def draw(seed: int, trial: int) -> Fault:
    """Return the fault of ``trial``: each kind once in as many trials as there are kinds."""
    cycle, place = divmod(trial, len(KINDS))
    kinds = random.Random(f"{seed} {cycle}").sample(KINDS, len(KINDS))
    kind, rng = kinds[place], random.Random(f"{seed} {trial}")
    node = rng.choice("ab")
    if kind in {"raylet", "link", "disk"}:
        node = "b"
    if kind in {"head", "keeper", "driver"}:
        node = "a"
    return Fault(
        trial=trial,
        kind=kind,
        node=node,
        blind=BLIND.get(kind, rng.random() < 0.6),
        delay=round(rng.uniform(0.1, 1.2), 2),
        quick=bool(cycle % 2),
        target=rng.choice(["worker", "actor"]),
    )


def on_ports(fault: Fault) -> Fault | None:
    """Return ``fault`` for nodes on two ports; None for a full disk, which would be this machine's.

    There both nodes see the same files.
    """
    return None if fault.kind == "disk" else replace(fault, blind=False)
