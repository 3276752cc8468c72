"""Flags of the options of retraining: averages of the weights, SAM and distillation."""

from typing import TYPE_CHECKING, Any

from pipeline.config.experiment import Experiment
from pipeline.config.schema import Retrain
from pipeline.errors import UserError
from pipeline.train.retrain_options import RetrainOptions
from pipeline.train.settings import flag_values, training_options

if TYPE_CHECKING:
    from pipeline.plan.planner import Planner


def option_flags(params: Experiment, retrain: Retrain) -> dict[str, Any]:
    """Return the flags of the options that are on in ``retrain``; none by default."""
    values = {option.name: option.default for option in training_options(RetrainOptions)}
    if retrain.average == "swa":
        values |= {"swa_start": params.swa.start or 0.0}
        values |= {"swa_learning_rate": params.swa.learning_rate}
    elif retrain.average == "ema":
        window = params.ema.window
        values |= {"ema_window": window} if window else {"ema_decay": params.ema.decay}
    if retrain.sam != "none":
        values |= {"sam": retrain.sam, "rho": retrain.rho}
    if retrain.distill:
        values |= {"distill": retrain.distill, "temperature": retrain.temperature}
    return flag_values(values, RetrainOptions)


def swa_flags(work: "Planner", **swa: float | None) -> dict[str, Any]:
    """Return the flags of ``retrain.average: swa`` at settings ``swa`` (start, learning_rate).

    The methods that are abbreviations of it take these flags, and name their networks themselves.

    Raises:
        UserError: params.yaml sets an average for all methods.
    """
    retrain = work.settings.retrain
    if retrain.average != "none" or retrain.vary == "average":
        key = "average" if retrain.average != "none" else "vary"
        raise UserError(
            f"retrain.{key} is {getattr(retrain, key)}, but {work.method} sets retrain.average to "
            f"swa: set retrain.{key} to {'none' if key == 'average' else 'seed'}, or leave "
            f"{work.method} out"
        )
    values = {f"swa.{name}": value for name, value in swa.items()}
    params = work.settings.with_values(values, work.source)
    averaged = retrain.model_copy(update={"average": "swa", "sam": "none", "distill": 0.0})
    return option_flags(params, averaged)


def constant_rate_swa_flags(work: "Planner") -> dict[str, Any]:
    """Return `swa_flags` over the last half of a retraining, at half of pretraining's rate.

    ``swa.start`` and ``swa.learning_rate`` replace these.
    """
    swa = work.settings.swa
    start = 0.5 if swa.start is None else swa.start
    rate = swa.learning_rate or work.settings.pretrain.learning_rate / 2
    return swa_flags(work, start=start, learning_rate=rate)
