"""Epochs, images and time of an experiment, from its plan: nothing is trained.

A training of E epochs on N images passes E N images through the network, forward and backward (2 E
N with SAM). At v images/s it takes E N / v seconds. Pruning, merging and measurements, which are
short compared with it, count as stages only.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.experiment import Experiment
from pipeline.errors import UserError
from pipeline.plan.build import build
from pipeline.plan.passes import passes, training_examples
from pipeline.plan.plan import Plan, Stage
from pipeline.run.scheduler import priorities

SLOTS = (1, 2, 8, 64)


@dataclass(frozen=True)
class Cost:
    """Number of stages, of trainings among them, and of their passes in epochs."""

    stages: int
    trainings: int
    epochs: int


def cost(stages: Iterable[Stage]) -> Cost:
    """Return the sum over ``stages``."""
    lengths = [passes(stage) for stage in stages]
    return Cost(len(lengths), sum(length > 0 for length in lengths), sum(lengths))


def costs(params: Experiment) -> tuple[dict[str, Cost], Plan]:
    """Return the cost of each method and study planned alone, and the plan of all together."""
    alone = {name: {"methods": [name], "studies": []} for name in params.methods}
    alone |= {
        f"study {name}": {"methods": params.methods[:1], "studies": [name]}
        for name in params.studies
    }
    plans = {name: build(params.with_values(values)) for name, values in alone.items()}
    return {name: cost(plan.nodes.values()) for name, plan in plans.items()}, build(params)


def span(plan: Plan, slots: int) -> int:
    """Return the epochs from start to end on ``slots`` equal slots, in the driver's order.

    Other stages than trainings take no time here.
    """
    inputs = {name: stage.inputs for name, stage in plan.nodes.items()}
    missing = {name: set(reads) for name, reads in inputs.items()}
    readers: dict[str, list[str]] = {name: [] for name in inputs}
    for name, reads in missing.items():
        for read in reads:
            readers[read].append(name)
    order = priorities(inputs, readers)
    ready = sorted(order[name] for name, reads in missing.items() if not reads)
    running: list[tuple[int, str]] = []
    now = 0
    while ready or running:
        while ready and len(running) < slots:
            name = heapq.heappop(ready).name
            heapq.heappush(running, (now + passes(plan.nodes[name]), name))
        now, ended = heapq.heappop(running)
        for reader in readers[ended]:
            missing[reader].remove(ended)
            if not missing[reader]:
                heapq.heappush(ready, order[reader])
    return now


def training_images(root: Path, given: int | None) -> int:
    """Return the number of training images: ``given``, or that of ``root``/artifacts/data.

    Raises:
        UserError: it is not given, and there are no prepared data.
    """
    file = root / "artifacts" / "data" / "train.safetensors"
    if given is not None:
        return given
    if not file.exists():
        raise UserError(
            "artifacts/data does not exist yet, so that the number of training images is not "
            "known: give it as --images N"
        )
    return training_examples(file)


def report(params: Experiment, images: int, speed: float, slots: Iterable[int] = SLOTS) -> str:
    """Return the table of methods, the epochs saved by sharing, and the time on several slots.

    Args:
        params: the experiment.
        images: of the training split.
        speed: images/s of one training.
        slots: numbers of stages that train at once.
    """
    alone, plan = costs(params)
    whole = cost(plan.nodes.values())
    seconds = images / speed  # an epoch
    total = Cost(*(sum(column) for column in zip(*map(_fields, alone.values()), strict=True)))
    rows: Mapping[str, Cost] = alone | {"sum": total, "together": whole}
    width = max(map(len, rows))
    lines = [f"{'':{width}}  stages  trainings  epochs           images       time"]
    lines += [
        f"{name:{width}}  {row.stages:6,}  {row.trainings:9,}  {row.epochs:6,}  "
        f"{row.epochs * images:15,}  {_time(row.epochs * seconds):>9}"
        for name, row in rows.items()
    ]
    saved = 1 - whole.epochs / total.epochs if total.epochs else 0.0
    lines += ["", f"sharing saves {saved:.0%} of the epochs that they would train alone", ""]
    lines.append("slots       time  efficiency")
    for number in slots:
        length = span(plan, number)
        efficiency = whole.epochs / (number * length) if length else 1.0
        lines.append(f"{number:5,}  {_time(length * seconds):>9}  {efficiency:10.0%}")
    longest = _time(span(plan, len(plan.nodes)) * seconds)
    lines.append(f"the longest chain of trainings takes {longest} on any number of slots")
    lines.append(f"{images:,} training images, {speed:,.0f} images/s for each slot")
    return "\n".join(lines) + "\n"


def _time(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    for unit, size in (("s", 1), ("min", 60)):
        if seconds < 120 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 3600:,.1f} h"


def _fields(row: Cost) -> tuple[int, int, int]:
    return row.stages, row.trainings, row.epochs
