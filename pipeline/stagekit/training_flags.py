"""Flags that pretraining, retraining and pruning during training share.

All that change the optimiser's steps are fields of `pipeline.train.settings`; here are the parser
that is derived from them, and the settings that are derived from what it has read.
"""

import argparse
import os
from dataclasses import MISSING
from typing import Any

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
    for option in training_options():
        more: dict[str, Any] = {"action": "store_true"}
        if option.metadata["type"] is not bool:
            default = None if option.default is MISSING else option.default
            more = {"type": option.metadata["type"], "default": default}
            more |= {"required": option.default is MISSING, "choices": option.metadata["choices"]}
        flag = f"--{flag_name(option).replace('_', '-')}"
        parser.add_argument(flag, help=option.metadata["about"], **more)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])


def settings(flags: argparse.Namespace) -> Settings:
    """Return the loop's settings that ``flags`` ask for.

    ``SMS_CUDA_GRAPHS=0`` launches a GPU's kernels one by one, which changes no bit.
    """
    given = vars(flags)
    return Settings(
        **field_values(Settings, given),
        augmentation=Augmentation(**field_values(Augmentation, given)),
        graph=os.environ.get("SMS_CUDA_GRAPHS", "1") != "0",
    )
