"""Corrupt the test images in the 19 ways of CIFAR-C and ImageNet-C, at five severities."""

import argparse
from pathlib import Path

from pipeline.cli import publish, run
from pipeline.data.base import load
from pipeline.evaluate.corruptions.generate import constants_for, generate
from pipeline.evaluate.corruptions.official import save_set

# One set for every seed and experiment, so that their accuracies compare.
SEED = 0

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    test = load(flags.data).test
    images = test.images[:].permute(0, 2, 3, 1).contiguous().numpy()  # [N, H, W, C]
    constants = constants_for(images.shape[1])
    with publish(flags.out) as folder:
        save_set(
            folder,
            lambda name, severity: generate(images, name, severity, constants, SEED),
            test.labels.numpy(),
            {"constants": constants, "seed": SEED},
        )


if __name__ == "__main__":
    run(main, parser)
