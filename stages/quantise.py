"""Quantise the prunable weights of a network, and re-estimate its BatchNorm statistics.

Biases, normalisation and activations stay float32. The file holds the rounded weights as float32.
"""

import argparse
from pathlib import Path

from pipeline.data.base import load
from pipeline.prune.prunable import prunable
from pipeline.prune.quantise import quantise_checkpoint, rounding
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import network, read, write
from pipeline.train.device import resolve_device
from pipeline.train.placement import resident

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--bits", type=int, required=True, help="of a weight")
parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    device, model = resolve_device(flags.device), read(flags.model)
    data = resident(load(flags.data), device)
    names = prunable(network(model))
    quantised = quantise_checkpoint(model, names, flags.bits)
    lost = rounding(model.state, quantised.state, names)
    with atomic_folder(flags.out) as folder:
        write(folder, quantised, data, device, bits=flags.bits, **lost)


if __name__ == "__main__":
    run(main, parser)
