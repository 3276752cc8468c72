"""Corrupt the test images in the 19 ways of CIFAR-C and ImageNet-C, at five severities.

A set that is too large to store is only described here, and generated when it is evaluated.
"""

import argparse
from pathlib import Path

from pipeline.data.base import load
from pipeline.evaluate.corruptions.generate import constants_for, generate
from pipeline.evaluate.corruptions.generated_set import MOST, too_large
from pipeline.evaluate.corruptions.write_npy_set import save_set
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.storage.checkpoint import write_json

# One set for every seed and experiment, so that their accuracies are comparable.
SEED = 0

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    test = load(flags.data).test
    constants = constants_for(max(test.images.shape[-2:]))
    meta = {"constants": constants, "seed": SEED}
    with atomic_folder(flags.out) as folder:
        if too_large(test.images.shape):
            meta |= {"layout": "streamed", "images": MOST, "synthetic": True}
            write_json(folder / "meta.json", meta)
            return
        images = test.images[:].permute(0, 2, 3, 1).contiguous().numpy()  # [N, H, W, C]
        save_set(
            folder,
            lambda name, severity: generate(images, name, severity, constants, SEED),
            test.labels.numpy(),
            meta,
        )


if __name__ == "__main__":
    run(main, parser)
