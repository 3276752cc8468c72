"""Measure one network's accuracy under every corruption and severity."""

import argparse
from pathlib import Path

from torch import Tensor

from pipeline.data.base import load
from pipeline.evaluate.corruptions.open_set import open_set
from pipeline.evaluate.partial_results import PartialResults, side_file
from pipeline.evaluate.robustness import robustness
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import MODEL, network_on, read
from pipeline.storage.checkpoint import write_json
from pipeline.train.device import resolve_device
from pipeline.train.predict import logits

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True, help="for its mean and standard deviation")
parser.add_argument("--model", type=Path, required=True)
parser.add_argument(
    "--corruptions", type=Path, required=True, help="a folder of CIFAR-10-C's layout, or a stage's"
)
parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage; continue from partial results of an interrupted run."""
    data, device = load(flags.data), resolve_device(flags.device)
    model = network_on(device, read(flags.model))
    corrupted = open_set(flags.corruptions, data)

    def predict(images: Tensor) -> Tensor:
        return logits(model, images, data.mean, data.std)

    inputs = (flags.model / MODEL, flags.data, flags.corruptions)
    cells = PartialResults(side_file(flags.out, inputs, device))
    metrics = robustness(predict, corrupted, cells)
    with atomic_folder(flags.out) as folder:
        write_json(folder / "metrics.json", metrics)
    cells.delete()


if __name__ == "__main__":
    run(main, parser)
