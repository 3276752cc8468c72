"""Candidates of one pruned network that differ in one setting, and the values that it takes."""

from typing import Any, Literal

from pipeline.config.experiment import Experiment
from pipeline.config.retraining import own_value
from pipeline.plan.studies.base import Study

Vary = Literal["seed", "weight_decay", "epochs", "learning_rate"]
SEEDS = 12  # candidates that differ in their seed, at most


def values_of(settings: Experiment, vary: Vary) -> list[Any]:
    """Return the values of the candidates: the recipe's setting, then the others of its grid.

    ``retrain.values`` of params.yaml take the grid's place for the setting of ``retrain.vary``.
    """
    if vary == "seed":
        return list(range(SEEDS))
    values: list[Any] = settings.retrain.grids.get(vary, [])
    if settings.retrain.vary == vary and settings.retrain.values:
        values = settings.retrain.values
    return [*dict.fromkeys([own_value(settings, vary), *values])]


def retrain_all(
    base: Study, vary: Vary, values: list[Any]
) -> tuple[Study, list[tuple[Study, str]]]:
    """Return the planner in which ``vary`` varies, and each candidate with its own planner.

    Candidate 0 has the recipe's settings. Planned by ``base``, its name has none that varies.
    """
    kind = base.with_changes(
        {
            "m": len(values),
            "retrain.vary": vary,
            "retrain.values": None if vary == "seed" else values[1:],
        }
    )
    pruned = base.prune(base.pretrain(), 1)
    planners = [base, *[kind] * (len(values) - 1)]
    return kind, [(each, each.retrain(pruned, 1, candidate=j)) for j, each in enumerate(planners)]
