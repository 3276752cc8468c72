"""Compile a network for inference, check its outputs, and measure its time beside PyTorch's.

The measured times differ from run to run, and the instruction set from CPU to CPU.
"""

import argparse
from pathlib import Path

from pipeline.data.base import load
from pipeline.evaluate.compiled_latency import compiled_latency
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import network, read
from pipeline.storage.checkpoint import write_json
from pipeline.train.normalise import normaliser

IMAGES = 64  # for the comparison of outputs, and for the times

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    data, model = load(flags.data), network(read(flags.model))
    normalise = normaliser(data.mean, data.std, next(model.parameters()).device)
    metrics = compiled_latency(model, normalise(data.test.images[:IMAGES]))
    with atomic_folder(flags.out) as folder:
        write_json(folder / "metrics.json", metrics)


if __name__ == "__main__":
    run(main, parser)
