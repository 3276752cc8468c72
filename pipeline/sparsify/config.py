"""Options of pruning during training, each defined once.

The planner, the stage's flags and the defaults of params.yaml read this class; the ranges of the
values are in pipeline/config/schema.py.
"""

from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the planner reads this file too, and has no other use for torch
    from collections.abc import Mapping

    from torch import Tensor

TO_A_SPARSITY = ("gmp", "dpf", "gsm", "lc", "dnw", "acdc", "rigl")  # for DST and STR it is a result


def _option(default: Any, about: str, *methods: str) -> Any:
    return field(default=default, metadata={"about": about, "methods": methods})


@dataclass(frozen=True)
class SparsifyConfig:
    """The sparsity to reach, and the options of the methods.

    Attributes that are no option of a method: epochs, of the whole training; epoch_steps, the
    optimiser's steps in each; begin and end, the epochs after which this part of it begins and ends
    (by default the whole); masks, by name, True = kept: those of the part before; seed, of masks
    that are drawn at random.
    """

    sparsity: float = _option(0.0, "fraction of the weights, in [0, 1)", *TO_A_SPARSITY)
    epochs: int = 1
    pruning_steps: int = _option(9, "on the ramp to the sparsity", "gmp", "dpf")
    mask_interval: int = _option(16, "iterations between masks; 0: at pruning steps only", "dpf")
    lc_mu0: float = _option(1e-3, "mu_0, of the first epoch", "lc")
    dst_alpha: float = _option(1e-6, "weight of the regulariser", "dst")
    str_init: float = _option(-5.0, "threshold before the sigmoid, at first", "str")
    acdc_warmup: float = _option(0.1, "share of the training, dense at first", "acdc")
    acdc_phase: int = _option(0, "epochs of a phase; 0: a twentieth of the training", "acdc")
    acdc_last: float = _option(0.15, "share of the training, the last compressed phase", "acdc")
    rigl_alpha: float = _option(0.3, "share of each layer's weights replaced at first", "rigl")
    rigl_interval: int = _option(0, "iterations between updates; 0: 100, fewer if short", "rigl")
    rigl_end: float = _option(0.75, "share of the training with updates", "rigl")
    epoch_steps: int = 1
    begin: int = 0
    end: int | None = None
    masks: "Mapping[str, Tensor] | None" = None
    seed: int = 0


def options(method: str | None = None) -> list[Field[Any]]:
    """Return the options of ``method``, or of all methods; ``metadata["about"]`` describes each.

    A method that no option names takes the sparsity.
    """
    every = [option for option in fields(SparsifyConfig) if option.metadata]
    if method is None:
        return every
    return [option for option in every if method in option.metadata["methods"]] or every[:1]


def valid_interval(value: int) -> int:
    """Return ``value``, if it is one of ``rigl_interval``: no update follows another at once.

    Raises:
        ValueError: says which values exist.
    """
    if value < 0 or value == 1:
        raise ValueError("0 or at least 2")
    return value
