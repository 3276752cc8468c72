"""The sparsity that averages of IMP runs lose, with and without matching their channels first."""

from copy import copy

from pipeline.config.schema import Section
from pipeline.plan.measurements import align, interpolate
from pipeline.plan.stage_adder import join_name
from pipeline.plan.studies.base import Study

APART = 100  # the difference between the seeds of runs from different dense networks


class Grid(Section):
    """The dense networks of the runs: one for all, and one for each."""

    one_dense: bool = True
    own_dense: bool = True


def plan(work: Study) -> None:
    """Average and re-prune m IMP runs after every phase, unmatched and matched to run 0.

    With a dense network each, run j is IMP's of seed + 100 j. The runs then share nothing but the
    data, which is the case that Git Re-Basin was made for.
    """
    grid = work.grid(Grid)
    if grid.one_dense:
        _measure(work, [work] * work.m, "one")
    if grid.own_dense:
        seeds = [work.seed + APART * j for j in range(work.m)]
        separate = copy(work)
        separate.variant = join_name(work.variant, "own_dense")
        _measure(separate, [Study(work.plan, seed, work.study) for seed in seeds], "own")


def _measure(work: Study, planners: list[Study], dense: str) -> None:
    """Add a result of the unmatched and one of the matched average after every phase."""
    runs = [planner.pretrain() for planner in planners]
    for phase in work.phases:
        for j, planner in enumerate(planners):
            planner.set_method("imp")
            candidate = j if dense == "one" else 0
            pruned = planner.prune(runs[j], phase, run=candidate)
            runs[j] = planner.retrain(pruned, phase, candidate=candidate)
        work.values = {"dense": dense, "sparsity": work.sparsity(phase)}
        work.set_method("imp_reprune")
        _point(work, work.reprune(runs, phase), runs, phase)
        work.set_method("imp_align")
        others = enumerate(runs[1:], start=1)
        matched = [runs[0], *(align(work, runs[0], run, phase, j) for j, run in others)]
        _point(work, work.reprune(matched, phase, unaligned=runs), matched, phase)


def _point(work: Study, average: str, runs: list[str], phase: int) -> None:
    work.point(phase, average, runs, interpolate=interpolate(work, runs, phase))
