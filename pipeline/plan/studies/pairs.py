"""Averages of every two candidates against the better one, by what varies (Figures 3, 5, 7, 8)."""

from itertools import combinations
from typing import Annotated, Any

from pydantic import Field

from pipeline.config.schema import Section, Sparsity
from pipeline.errors import UserError
from pipeline.plan.studies._varied import SEEDS, Vary, retrain_all, values_of
from pipeline.plan.studies.base import Study


class Grid(Section):
    """The settings that vary, and the number of candidates, at most that of the recipe's values."""

    sparsity: Sparsity = 0.9
    candidates: Annotated[int, Field(ge=2, le=SEEDS)] = 8
    vary: list[Vary] = Field(["seed", "weight_decay", "epochs", "learning_rate"])


def plan(work: Study) -> None:
    """Retrain candidates that differ in one setting, and average each pair of them.

    ``evaluate.corruptions: all`` measures candidates and averages on corrupted images too.

    Raises:
        UserError: there are no two values of anything that varies.
    """
    grid = work.grid(Grid)
    shot, planned = work.one_shot(grid.sparsity), False
    for vary in grid.vary:
        # The paper varies the initial rate of a linear schedule: candidate 0 has one as well.
        base = shot.at(schedule="LLR") if vary == "learning_rate" else shot
        values = values_of(base.settings, vary)[: grid.candidates]
        if len(values) > 1:
            _average_pairs(base, vary, values)
            planned = True
    if not planned:
        raise UserError(
            f"study.pairs.vary is {grid.vary}, but retrain.grids has no two values of it: list "
            "values there, or add seed"
        )


def _average_pairs(base: Study, vary: Vary, values: list[Any]) -> None:
    kind, made = retrain_all(base, vary, values)
    candidates = [name for _, name in made]
    ood = [planner.corrupted(name, 1) for planner, name in made]
    for i, j in combinations(range(len(values)), 2):
        pair = kind.labelled(vary=vary, first=values[i], second=values[j])
        pair.set_method(f"pair_c{i}c{j}")
        model = pair.merge([candidates[i], candidates[j]], 1, "uniform")
        nodes = {"ood": pair.corrupted(model, 1), "ood_first": ood[i], "ood_second": ood[j]}
        pair.point(1, model, (candidates[i], candidates[j]), **nodes)
