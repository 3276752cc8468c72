"""Averages of every two candidates against the better one, by what varies (Figures 3, 5, 7, 8)."""

from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.config.experiment import Experiment
from pipeline.config.retraining import own_value
from pipeline.config.schema import Section, Sparsity
from pipeline.plan.studies.base import Study

Vary = Literal["seed", "weight_decay", "epochs", "learning_rate"]


class Grid(Section):
    """The settings that vary, and the number of candidates, at most that of the recipe's values."""

    sparsity: Sparsity = 0.9
    candidates: Annotated[int, Field(ge=2, le=12)] = 8
    vary: list[Vary] = Field(["seed", "weight_decay", "epochs", "learning_rate"])


def plan(work: Study) -> None:
    """Retrain candidates that differ in one setting, and average each pair of them.

    ``evaluate.corruptions: all`` measures candidates and averages on corrupted images too.
    """
    grid = work.grid(Grid)
    shot = work.one_shot(grid.sparsity)
    for vary in grid.vary:
        # The paper varies the initial rate of a linear schedule: candidate 0 has one as well.
        base = shot.at(schedule="LLR") if vary == "learning_rate" else shot
        values = _values(base.settings, vary)[: grid.candidates]
        if len(values) > 1:
            _average_pairs(base, vary, values)


def _average_pairs(base: Study, vary: Vary, values: list[Any]) -> None:
    kind = base.with_changes(
        {
            "m": len(values),
            "retrain.vary": vary,
            "retrain.values": None if vary == "seed" else values[1:],
        }
    )
    pruned = base.prune(base.pretrain(), 1)
    # Candidate 0 has the recipe's settings. Planned by `base`, its name has none that varies.
    makers = [base, *[kind] * (len(values) - 1)]
    candidates = [maker.retrain(pruned, 1, candidate=j) for j, maker in enumerate(makers)]
    ood = [maker.corrupted(one, 1) for maker, one in zip(makers, candidates, strict=True)]
    for i, j in combinations(range(len(values)), 2):
        pair = kind.with_changes({}, vary=vary, first=values[i], second=values[j])
        pair.set_method(f"pair_c{i}c{j}")
        model = pair.merge([candidates[i], candidates[j]], 1, "uniform")
        nodes = {"ood": pair.corrupted(model, 1), "ood_first": ood[i], "ood_second": ood[j]}
        pair.point(1, model, (candidates[i], candidates[j]), **nodes)


def _values(settings: Experiment, vary: Vary) -> list[Any]:
    """Return the values of the candidates: the recipe's setting, then the others of its grid."""
    if vary == "seed":
        return list(range(12))
    values: list[Any] = settings.retrain.grids.get(vary, [])
    if settings.retrain.vary == vary and settings.retrain.values:
        values = settings.retrain.values
    return [*dict.fromkeys([own_value(settings, vary), *values])]
