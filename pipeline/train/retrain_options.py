"""Options of retraining, each defined once: averages of the weights, SAM and distillation.

The stage's flags and the planner's commands are read off these fields, as those of
`pipeline.train.settings`. All are off by default. Meanings and bounds of the keys of params.yaml
are in pipeline/config/schema.py.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.train.settings import flag

Average = Literal["none", "swa", "ema"]
Sam = Literal["none", "sam", "s2sam"]
PASSES: dict[str, int] = {"none": 1, "sam": 2, "s2sam": 1}


def passes(sam: str) -> int:
    """Return how many forward-backward passes a step takes with ``retrain.sam``: SAM takes two."""
    return PASSES[sam]


@dataclass(frozen=True)
class RetrainOptions:
    """What a retraining adds to SGD under a mask.

    Attributes: swa_start and swa_learning_rate, of epoch averages (pipeline/train/swa.py);
    ema_decay or ema_window, of step averages (pipeline/train/ema.py); sam and rho, of sharpness-
    aware minimisation (pipeline/train/sam.py and s2sam.py); distill, the weight of distillation
    from the dense network, and temperature (pipeline/train/distill.py).
    """

    swa_start: float | None = field(
        default=None, metadata=flag(float, "fraction after which epochs are averaged")
    )
    swa_learning_rate: float | None = field(
        default=None, metadata=flag(float, "constant rate from there on")
    )
    ema_decay: float | None = field(
        default=None, metadata=flag(float, "of the moving average over steps, in [0, 1)")
    )
    ema_window: float | None = field(
        default=None, metadata=flag(float, "of that average, as a fraction of all steps")
    )
    sam: Sam = field(
        default="none",
        metadata=flag(str, "sharpness-aware minimisation, in two passes or one", *PASSES),
    )
    rho: float = field(default=0.05, metadata=flag(float, "norm of its perturbation"))
    distill: float = field(
        default=0.0, metadata=flag(float, "weight of distillation from --dense, in [0, 1]")
    )
    temperature: float = field(default=4.0, metadata=flag(float, "of distillation"))


def modules(options: dict[str, Any]) -> tuple[str, ...]:
    """Return the modules that a retraining with these flags imports by name."""
    names = ["ema"] if {"ema_decay", "ema_window"} & options.keys() else []
    names += [options["sam"]] if "sam" in options else []
    names += ["distill"] if "distill" in options else []
    return tuple(f"pipeline.train.{name}" for name in names)
