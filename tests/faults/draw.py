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
CLOCKS = ("during the run", "after a kill", "files from the future")


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
    return Fault(kind, _details(kind, numbers))


def _details(kind: str, numbers: random.Random) -> dict[str, Any]:
    share = round(numbers.random(), 3)
    match kind:
        case "kill at a random time":
            return _signal(numbers) | {"at": share}
        case "kill at a write":
            point = numbers.choice(POINTS)
            own = {"target": point.partition(":")[0]} if numbers.random() < 0.6 else {}
            return _signal(numbers) | own | {"point": point, "at": share}
        case "power loss":
            return {"disk": numbers.choice(("ext4", "ext4 noauto_da_alloc"))} | numbers.choice(
                [{"at": share}, {"point": numbers.choice(POINTS), "at": share}]
            )
        case "full disk":
            return {"disk": numbers.choice(DISKS), "at": share}
        case "bit flipped":
            return {"file": numbers.choice(BITS), "at": share, "bit": numbers.randrange(8)}
        case "clock set back":
            return {"when": numbers.choice(CLOCKS)}
        case "two runs at once":
            return {"second": numbers.choice(("repro", "push", "gc", "repro")), "at": share}
        case "remote breaks off":
            return {"while": numbers.choice(("pushing", "pulling")), "at": share}
        case "out of memory":
            return {"megabytes": numbers.choice((1, 5, 20, 60, 150))}
    return {}


def _signal(numbers: random.Random) -> dict[str, Any]:
    signal, target = numbers.choice(SIGNALS), numbers.choice(ROLES)
    return {"signal": "SIGINT" if target == "group" else signal, "target": target}
