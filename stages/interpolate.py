"""Measure losses and errors on the lines between networks, and their barriers."""

import argparse
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.averaging import check, weighted_sum
from pipeline.data.base import load
from pipeline.errors import UserError
from pipeline.soup._interpolate import barrier, grid
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import read
from pipeline.stagekit.split_measures import Measures, measure, some
from pipeline.storage.checkpoint import Checkpoint, write_json
from pipeline.train.device import resolve_device
from pipeline.train.placement import resident

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--models", type=Path, nargs="+", required=True, help="every pair is joined")
parser.add_argument("--points", type=int, default=11, help="on each line, its ends included")
parser.add_argument(
    "--train-images", type=int, default=10000, help="at most, drawn with a fixed seed"
)
parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    device = resolve_device(flags.device)
    data = resident(load(flags.data), device)
    splits = {"train": some(data.train, flags.train_images), "val": data.val, "test": data.test}
    models = [read(folder) for folder in flags.models]
    if len(models) < 2:
        raise UserError("interpolation needs at least two networks: set m to 2 or more.")
    check(models, masks=False)
    fractions = grid(flags.points)
    ends = [measure(model, data, splits, device) for model in models]
    pairs = []
    for i, j in combinations(range(len(models)), 2):
        inner = [
            Checkpoint(
                weighted_sum([models[i].state, models[j].state], [1 - a, a]), {}, models[i].meta
            )
            for a in fractions[1:-1]
        ]
        points = [ends[i], *(measure(each, data, splits, device) for each in inner), ends[j]]
        pairs.append({"models": [i, j], **_pair(fractions, points)})
    with atomic_folder(flags.out) as folder:
        write_json(folder / "metrics.json", {**_over(pairs), "shares": fractions, "pairs": pairs})


def _pair(fractions: list[float], points: list[Measures]) -> dict[str, Any]:
    """Return the curve of every measure on one line, and its barrier."""
    curves = {
        f"{split}_{measure}": [point[split][measure] for point in points]
        for split in points[0]
        for measure in points[0][split]
    }
    barriers = {f"{name}_barrier": barrier(fractions, curve) for name, curve in curves.items()}
    return {**barriers, "curves": curves}


def _over(pairs: list[dict[str, Any]]) -> dict[str, float]:
    """Return mean and maximum over the pairs of every barrier."""
    names = [name for name in pairs[0] if name.endswith("_barrier")]
    barriers = {name: [pair[name] for pair in pairs] for name in names}
    means = {f"{name}_mean": fmean(values) for name, values in barriers.items()}
    return means | {f"{name}_max": max(values) for name, values in barriers.items()}


if __name__ == "__main__":
    run(main, parser)
