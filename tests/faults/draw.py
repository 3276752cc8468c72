"""Draws the faults of the trials: the seed and the number of a trial determine its fault."""

import random
from dataclasses import dataclass, field
from typing import Any

WEIGHTS = {
    "kill at a random time": 60,
    "kill at a write": 60,
    "power loss": 24,
    "full disk": 14,
    "read-only cache": 4,
    "bit flipped": 16,
    "clock set back": 6,
    "two runs at once": 6,
    "remote breaks off": 6,
    "out of memory": 6,
}
POINTS = (
    "driver: artifacts",
    "driver: cache",
    "driver: graph",
    "driver: lock",
    "driver: reports",
    "driver: run cache",
    "driver: tmp",
    "dvc: root lock",
    "dvc: tmp",
    "worker: artifacts",
    "worker: tmp",
    "writer: artifacts",
    "writer: mlartifacts",
    "writer: mlflow.db",
)
SIGNALS = ("SIGKILL", "SIGSTOP", "SIGTERM", "SIGINT")  # SIGKILL follows SIGSTOP
ROLES = ("dvc", "driver", "server", "worker", "writer", "group")  # the group as of Ctrl-C
DISKS = ("cache", "artifacts", "temporary folder", "mlflow.db")
BITS = ("cached object", "artifact", "stages/dvc.lock", "mlflow.db")
FILE_SYSTEMS = ("ext4", "ext4 noauto_da_alloc")
SECOND = ("repro", "repro", "push", "gc")
CLOCKS = ("during the run", "after a kill", "files from the future")

TRACKED = 0.3  # the part of the trials with MLflow, which takes half of a run's time


@dataclass(frozen=True)
class Fault:
    """A fault: its kind and its details, drawn at random."""

    kind: str
    details: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join(f"{key} {value}" for key, value in self.details.items())


def draw(seed: int, trial: int) -> Fault:
    """Return the fault of a trial."""
    numbers = random.Random(f"{seed} {trial}")
    kind = numbers.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    details = _details(kind, numbers)
    tracked = numbers.random() < TRACKED or any(
        word in str(value) for value in details.values() for word in ("writer", "mlflow")
    )
    return Fault(kind, details | {"MLflow": "on" if tracked else "off"})


def _details(kind: str, numbers: random.Random) -> dict[str, Any]:
    share = round(numbers.random(), 3)
    if kind == "kill at a random time":
        return _signal(numbers) | {"at": share}
    if kind == "kill at a write":
        point = numbers.choice(POINTS)
        own = {"target": point.partition(":")[0]} if numbers.random() < 0.6 else {}
        return _signal(numbers) | own | {"point": point, "at": share}
    point = {"point": numbers.choice(POINTS)} if numbers.random() < 0.5 else {}
    choices: dict[str, dict[str, Any]] = {
        "power loss": {"disk": numbers.choice(FILE_SYSTEMS), **point, "at": share},
        "full disk": {"disk": numbers.choice(DISKS), "at": share},
        "bit flipped": {"file": numbers.choice(BITS), "at": share, "bit": numbers.randrange(8)},
        "clock set back": {"when": numbers.choice(CLOCKS)},
        "two runs at once": {"second": numbers.choice(SECOND), "at": share},
        "remote breaks off": {"while": numbers.choice(("pushing", "pulling")), "at": share},
        "out of memory": {"megabytes": numbers.choice((1, 5, 20, 60, 150))},
    }
    return choices.get(kind, {})


def _signal(numbers: random.Random) -> dict[str, Any]:
    signal, target = numbers.choice(SIGNALS), numbers.choice(ROLES)
    return {"signal": "SIGINT" if target == "group" else signal, "target": target}
