"""Soups of 1, 2, 3, ... candidates, where more stop helping, and one copy trained as long."""

from typing import Annotated

from pydantic import Field

from pipeline.config.schema import Section, Sparsity
from pipeline.errors import UserError
from pipeline.plan.methods import imp_mx
from pipeline.plan.studies.base import Study

Times = Annotated[int, Field(ge=1, le=100)]


class Grid(Section):
    """The sparsities, the largest soup, and the lengths of the single copy.

    A length is a multiple of the epochs of one candidate.
    """

    sparsities: list[Sparsity] = Field([0.9, 0.98])
    m: Annotated[int, Field(ge=2, le=100)] = 20
    longer: list[Times] = Field([1, 2, 3, 5, 10, 20])


def plan(work: Study) -> None:
    """Average every prefix of the same candidates, pruned in one shot; retrain one copy for longer.

    Raises:
        UserError: candidates are to differ in their epochs, so that m of them have no length of m.
    """
    if work.settings.retrain.vary == "epochs":
        raise UserError(
            "retrain.vary is epochs, but the study soup_size compares soups and longer copies of "
            "equal epochs: set it to seed, or leave the study out"
        )
    grid = work.grid(Grid)
    for sparsity in grid.sparsities:
        shot = work.one_shot(sparsity)
        most, pruned = shot.with_changes({"m": grid.m}), shot.prune(shot.pretrain(), 1)
        candidates = [most.retrain(pruned, 1, candidate=j) for j in range(grid.m)]
        for m in range(1, grid.m + 1):
            soup = shot.at(m=m)
            soup.set_method("sms_uniform")
            model = soup.merge(candidates[:m], 1, "uniform") if m > 1 else candidates[0]
            soup.point(1, model, candidates[:m])
        for times in grid.longer:  # after all soups: the copy of 1 time is candidate 0
            imp_mx.plan(shot.at(m=times))
