"""Flags that pretraining, retraining and pruning during training share.

Options of the optimiser's steps are fields of `pipeline.train.settings`, from which the parser is
derived, and the settings again from the flags it has read.
"""

import argparse
from dataclasses import MISSING
from typing import Any

from pipeline.process import CUDA_GRAPHS, flag
from pipeline.schedules.pretrain_lr import pretrain_rates
from pipeline.train.settings import (
    Augmentation,
    Settings,
    field_values,
    flag_name,
    training_options,
)


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `Settings` and `Augmentation`, and length, seed and device."""
    parser.add_argument("--epochs", type=int, required=True)
    add_option_flags(parser)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])


def add_option_flags(parser: argparse.ArgumentParser, *classes: type) -> None:
    """Add the flags that are fields of ``classes``, by default of `Settings` and `Augmentation`."""
    for option in training_options(*classes):
        more: dict[str, Any] = {"action": "store_true"}
        if option.metadata["type"] is not bool:
            default = None if option.default is MISSING else option.default
            more = {"type": option.metadata["type"], "default": default}
            more |= {"required": option.default is MISSING, "choices": option.metadata["choices"]}
        flag = f"--{flag_name(option).replace('_', '-')}"
        parser.add_argument(flag, help=option.metadata["about"], **more)


def settings(flags: argparse.Namespace) -> Settings:
    """Return the loop's settings that ``flags`` ask for.

    ``SMS_CUDA_GRAPHS=0`` launches a GPU's kernels one by one, which changes no bit.
    """
    given = vars(flags)
    return Settings(
        **field_values(Settings, given),
        augmentation=Augmentation(**field_values(Augmentation, given)),
        graph=flag(CUDA_GRAPHS),
    )


def add_schedule_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a pretraining schedule."""
    parser.add_argument("--schedule", required=True)
    parser.add_argument("--milestones", type=float, nargs="*", default=[])
    parser.add_argument("--warmup", type=float, default=0.0, help="fraction of all steps")
    parser.add_argument("--learning-rate", type=float, required=True)


def scheduled_rates(flags: argparse.Namespace, steps: int) -> list[float]:
    """Return the learning rate of every one of ``steps`` by the schedule that ``flags`` name."""
    return pretrain_rates(
        flags.schedule,
        steps,
        flags.learning_rate,
        milestones=flags.milestones,
        warmup=flags.warmup,
    )
