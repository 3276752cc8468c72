"""The flags that pretraining and retraining share, and what they mean to the loop."""

import argparse
import os

from pipeline.train.augment import Augmentation
from pipeline.train.settings import Settings


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """Add how to train: length, batch, regularisation, augmentation, seed and device."""
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--weight-decay", type=float, required=True)
    parser.add_argument("--label-smoothing", type=float, default=0.0)
    parser.add_argument("--clip-norm", type=float)
    parser.add_argument("--crop-padding", type=int, default=0, help="pixels")
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--rotation", type=float, default=0.0, help="degrees")
    parser.add_argument("--resized-crop", type=float, help="smallest share of an image's area")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="the network, by torch.compile")
    parser.add_argument("--nondeterministic", action="store_true", help="a GPU's fastest kernels")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])


def settings(flags: argparse.Namespace) -> Settings:
    """Return the loop's settings that ``flags`` ask for.

    ``SMS_CUDA_GRAPHS=0`` launches a GPU's kernels one by one, which changes no bit.
    """
    return Settings(
        batch_size=flags.batch_size,
        weight_decay=flags.weight_decay,
        label_smoothing=flags.label_smoothing,
        clip_norm=flags.clip_norm,
        augmentation=Augmentation(
            flags.crop_padding, flags.flip, flags.rotation, flags.resized_crop
        ),
        precision=flags.precision,
        compile=flags.compile,
        deterministic=not flags.nondeterministic,
        graph=os.environ.get("SMS_CUDA_GRAPHS", "1") != "0",
    )
