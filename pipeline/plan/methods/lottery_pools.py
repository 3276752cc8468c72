"""Lottery Pools: rewound tickets, interpolated with each other greedily (Yin et al., 2023)."""

from pipeline.plan.methods.rewind import tickets
from pipeline.plan.planner import Planner

LABEL = "Lottery Pools"
LOOK = ("vermilion", "<", ":")


def plan(work: Planner) -> None:
    """Search all tickets of IMP with rewinding, the dense network first; nothing is trained."""
    work.set_method("lottery_pools", lineage="rewind")
    pool = [work.pretrain(), *tickets(work)]
    for phase in work.phases:
        others = [pool[number] for number in adjacent(phase, len(pool))]
        work.report(phase, work.interpolate_tickets(pool[phase], others, phase))


def adjacent(target: int, count: int) -> list[int]:
    """Return the numbers below ``count`` other than ``target``, nearest first, t - 1 before t + 1.

    Source: Yin et al. 2023, Algorithm 2, line 1.
    """
    others = (number for number in range(count) if number != target)
    return sorted(others, key=lambda number: abs(number - target))
