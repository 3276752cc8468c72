"""Options of retraining on the stage's command line: the hooks, the criterion and the step.

What one option needs is imported by name where the option is on. The planner names these modules
(`pipeline.train.retrain_options.modules`), so a retraining without the option does not depend on
its code.
"""

import argparse
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch

from pipeline.stagekit.model_folder import network, read
from pipeline.train.criterion import Criterion
from pipeline.train.hook import Hook
from pipeline.train.retrain_options import RetrainOptions
from pipeline.train.settings import field_values
from pipeline.train.step import Step
from pipeline.train.swa import AverageEpochs


def options(flags: argparse.Namespace) -> RetrainOptions:
    """Return the options that ``flags`` ask for."""
    return RetrainOptions(**field_values(RetrainOptions, vars(flags)))


def averages(chosen: RetrainOptions, epochs: int, steps: int) -> list[Hook]:
    """Return the hook that averages the weights of a training of ``epochs``, if any."""
    if chosen.swa_start is not None:
        return [AverageEpochs(chosen.swa_start, epochs)]
    if chosen.ema_decay is None and chosen.ema_window is None:
        return []
    ema = _module("ema")
    decay = chosen.ema_decay
    if chosen.ema_window is not None:
        decay = ema.decay_of_window(chosen.ema_window, steps)
    return [ema.AverageSteps(decay)]


def step_type(chosen: RetrainOptions) -> Callable[..., Step] | None:
    """Return the step of SAM or S2-SAM; None for SGD's own."""
    if chosen.sam == "none":
        return None
    return partial(_module(chosen.sam).STEP, rho=chosen.rho)


def criterion(
    chosen: RetrainOptions, task: Criterion, dense: Path, device: torch.device
) -> Criterion:
    """Return the criterion of ``task``, with distillation from the network in ``dense`` if asked.

    The dense network is put on ``device``, where the training puts its own.
    """
    if not chosen.distill:
        return task
    teacher = network(read(dense)).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = {"weight": chosen.distill, "temperature": chosen.temperature}
    return cast("Criterion", _module("distill").Distilled(task, teacher, **weights))


def _module(name: str) -> Any:
    return import_module(f"pipeline.train.{name}")
