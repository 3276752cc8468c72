"""Checks of the options of retraining, and the values in which candidates differ."""

from typing import TYPE_CHECKING, Any, get_args

from pipeline.config.validation import check_choice, check_distinct
from pipeline.errors import UserError
from pipeline.train.retrain_options import Average, Sam

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.config.experiment import Experiment

NAMED = {"average": get_args(Average), "sam": get_args(Sam)}  # options whose values are names


def check_options(params: "Experiment") -> None:
    """Refuse options of retraining that do not fit to each other or to the task.

    Raises:
        UserError: distillation of other tasks than classification, a rho that varies without SAM,
            parts of epochs, or a value twice in a grid.
    """
    retrain = params.retrain
    if params.task != "classification" and (retrain.distill or retrain.vary == "distill"):
        key, off = ("distill", "0") if retrain.distill else ("vary", "seed")
        raise UserError(
            f"retrain.{key} is {getattr(retrain, key)}, but distillation compares the scores of "
            f"classes, and the task is {params.task}: set it to {off}"
        )
    for kind, values in retrain.grids.items():
        check_distinct(f"retrain.grids.{kind}", values)
    if any(value != int(value) for value in retrain.grids.get("epochs", [])):
        raise UserError(
            f"retrain.grids.epochs is {retrain.grids['epochs']}, but must be whole numbers"
        )
    if retrain.vary == "rho" and retrain.sam == "none":
        raise UserError(
            "retrain.vary is rho, but retrain.sam is none, which has no rho: set retrain.sam to "
            "sam or s2sam"
        )


def varied_values(params: "Experiment") -> list[float | str]:
    """Return what ``retrain.vary`` is for candidates 1, 2, ...

    Candidate 0 is always the recipe's own setting, so that it is IMP's candidate too; the others
    take ``retrain.values``, or the recipe's grid, in order and without that setting.

    Raises:
        UserError: values that the setting does not take, or too few of them.
    """
    retrain, vary = params.retrain, params.retrain.vary
    if vary == "seed":
        if retrain.values is not None:
            raise UserError(
                f"retrain.values is {retrain.values}, but retrain.vary is seed, which takes none: "
                "leave it null, or set retrain.vary"
            )
        return []
    grids: dict[Any, list[float]] = {**retrain.grids}
    values: list[float | str] = [*(retrain.values or grids.get(vary, []))]
    first = own_value(params, vary)
    check_distinct("retrain.values", values)
    _check_values(vary, values)
    others = [value for value in values if value != first]
    if len(others) < params.m - 1:
        shown = first if isinstance(first, str) else f"{first:g}"
        raise UserError(
            f"retrain.values has {len(others)} values besides the recipe's {vary} {shown}, but "
            f"m = {params.m} needs {params.m - 1}: list more values or lower m"
        )
    return others[: params.m - 1]


def own_value(params: "Experiment", vary: str) -> float | str:
    """Return the setting of what ``retrain.vary`` may name, but for the seed."""
    if vary in {"weight_decay", "learning_rate"}:
        value: float = getattr(params.pretrain, vary)
        return value
    option: float | str = getattr(params.retrain, vary)
    return option


def _check_values(vary: str, values: list[float | str]) -> None:
    """Refuse ``retrain.values`` that ``retrain.vary`` does not take."""
    for value in values if vary in NAMED else ():
        check_choice("a value of retrain.values", value, list(NAMED[vary]))
    rules: dict[str, tuple[Callable[[float], bool], str]] = {
        "epochs": (lambda value: value == int(value), "whole numbers of epochs"),
        "distill": (lambda value: value <= 1, "in [0, 1]"),
    }
    holds, need = rules.get(vary, (lambda _: True, "numbers"))
    for value in values if vary not in NAMED else ():
        if isinstance(value, str) or not holds(value):
            raise UserError(f"retrain.values is {values}, but must be {need}")
