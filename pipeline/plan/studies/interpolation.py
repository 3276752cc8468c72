"""Loss barriers between networks: SMS's candidates, of one parent, against diverged IMP runs."""

from pydantic import Field

from pipeline.config.schema import Section
from pipeline.plan.measurements import interpolate
from pipeline.plan.studies.base import Study


class Grid(Section):
    """``points``: how many networks of each straight line are measured, its ends included."""

    points: int = Field(11, ge=3)


def plan(work: Study) -> None:
    """Interpolate between m runs of IMP after every phase, and between m candidates of SMS."""
    points = work.grid(Grid).points
    soup, runs = work.pretrain(), [work.pretrain()] * work.m
    for phase in work.phases:
        work.values = {"sparsity": work.sparsity(phase)}
        work.set_method("imp_reprune", lineage="imp")
        parents = [work.prune(run, phase, run=j) for j, run in enumerate(runs)]
        runs = [work.retrain(parent, phase, candidate=j) for j, parent in enumerate(parents)]
        work.point(phase, runs[0], runs, interpolate=interpolate(work, runs, phase, points))
        work.set_method("sms_uniform")
        pruned = work.prune(soup, phase)
        candidates = [work.retrain(pruned, phase, candidate=j) for j in range(work.m)]
        soup = work.merge(candidates, phase, "uniform")
        lines = interpolate(work, candidates, phase, points)
        work.point(phase, soup, candidates, interpolate=lines)
