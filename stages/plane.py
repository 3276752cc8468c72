"""Measure loss and error on the plane through three networks of one mask, with their mean in it."""

import argparse
from itertools import combinations
from pathlib import Path

from pipeline.averaging import check, weighted_sum
from pipeline.data.base import load
from pipeline.evaluate.distance import distances
from pipeline.soup._plane import corners, grid, weights
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import network, read
from pipeline.stagekit.split_measures import measure, some
from pipeline.storage.checkpoint import Checkpoint, write_json
from pipeline.train.device import resolve_device
from pipeline.train.placement import resident

MARGIN = 0.3  # of the triangle's width and height, beyond it

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--models", type=Path, nargs=3, required=True)
parser.add_argument("--points", type=int, default=13, help="of each side")
parser.add_argument(
    "--train-images", type=int, default=2000, help="at most, drawn with a fixed seed"
)
parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    device = resolve_device(flags.device)
    data = resident(load(flags.data), device)
    splits = {"train": some(data.train, flags.train_images), "test": data.test}
    models = [read(folder) for folder in flags.models]
    check(models)
    parameters = [name for name, _ in network(models[0]).named_parameters()]
    states = [model.state for model in models]
    lengths = [distances(pair, parameters)["l2_mean"] for pair in combinations(states, 2)]
    triangle = corners(*lengths)
    xs, ys = grid(triangle, flags.points, MARGIN)
    rows = [
        [
            measure(
                Checkpoint(weighted_sum(states, weights((x, y), triangle)), {}, models[0].meta),
                data,
                splits,
                device,
            )
            for x in xs
        ]
        for y in ys
    ]
    surfaces = {
        f"{split}_{name}": [[point[split][name] for point in row] for row in rows]
        for split in splits
        for name in ("loss", "error")
    }
    mean = [sum(values) / 3 for values in zip(*triangle, strict=True)]
    with atomic_folder(flags.out) as folder:
        write_json(
            folder / "metrics.json",
            {"x": xs, "y": ys, "corners": triangle, "mean": mean, **surfaces},
        )


if __name__ == "__main__":
    run(main, parser)
