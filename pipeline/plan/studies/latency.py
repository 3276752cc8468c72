"""Score against the measured time of compiled inference, by allocation and sparsity."""

from itertools import product

from pydantic import Field

from pipeline.config.members import check_labels
from pipeline.config.schema import Section, Sparsity
from pipeline.errors import UserError
from pipeline.plan.measurements import latency
from pipeline.plan.methods import sms
from pipeline.plan.studies.base import Study


class Grid(Section):
    """The sparsities and the allocations that spread them over the layers."""

    sparsities: list[Sparsity] = Field([0.9, 0.95, 0.98])
    allocations: list[str] = Field(["global", "uniform", "latency"])


def plan(work: Study) -> None:
    """Make uniform soups in one shot; compile and time them and the dense network.

    Raises:
        UserError: the task is not classification, or not single weights are pruned.
    """
    grid, structure = work.grid(Grid), work.settings.prune.structure
    if work.settings.task != "classification":
        raise UserError(
            f"studies has latency, which needs a classifier, but the recipe's task is "
            f"{work.settings.task}: leave it out"
        )
    if structure != "weights":
        raise UserError(
            f"studies has latency, which compares allocations of single weights, but "
            f"prune.structure is {structure}: set it to weights, or leave the study out"
        )
    check_labels(grid.allocations, "prune/allocations")
    dense = work.pretrain()
    work.point(0, dense, latency=latency(work, dense, 0))
    for allocation, sparsity in product(dict.fromkeys(grid.allocations), grid.sparsities):
        shot = work.at(allocation=allocation).one_shot(sparsity)
        for point in shot.with_changes({"merge": ["uniform"]}).collect(sms.plan):
            shot.set_method(point.method)
            timed = latency(shot, point.model, point.phase)
            shot.point(point.phase, point.model, point.candidates, latency=timed)
