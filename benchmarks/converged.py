"""Runs in a converged regime: the images of Fashion-MNIST, and rows by seed for docs/data/.

    python -m benchmarks.converged images /usr/share/datasets/fashion-mnist data/fashion
    dvc exp run -S recipe=image_folder -S data.path=data/fashion ...     # docs/results.md
    python -m benchmarks.converged rows fashion reports/results.csv params.yaml

`images` reads the official files (Debian's package dataset-fashion-mnist) and writes PNG files: the
first 300 training images of each class, and all test images. `rows` adds the scores of a run to
docs/data/converged.csv. Rows of equal settings differ in method, phase and seed; a run with
more seeds or methods adds what is new.
"""

import argparse
import gzip
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.bundle import origin
from pipeline.bundle.intake import append_rows, as_text, experiment_id
from pipeline.config import experiment
from pipeline.errors import UserError
from pipeline.pages.converged import ROWS

ROOT = Path(__file__).parent.parent
CLASSES = ("tshirt", "trouser", "pullover", "dress", "coat",
           "sandal", "shirt", "sneaker", "bag", "boot")  # fmt: skip
TRAIN_IMAGES = 300  # of each class
SCORES = ["sparsity", "test_score", "val_score", "best_candidate_test_score",
          "mean_candidate_test_score"]  # fmt: skip
KEY = ["experiment", "golden", "method", "phase", "seed"]


def images(source: Path, folder: Path) -> None:
    """Write an image folder from the four files of Fashion-MNIST in ``source``."""
    for part, prefix, limit in (("train", "train", TRAIN_IMAGES), ("test", "t10k", None)):
        raw = gzip.decompress((source / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
        pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)
        raw = gzip.decompress((source / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
        labels = np.frombuffer(raw, np.uint8, offset=8)
        for number, name in enumerate(CLASSES):
            target = folder / part / f"{number}_{name}"
            target.mkdir(parents=True, exist_ok=True)
            for index in np.flatnonzero(labels == number)[:limit]:
                Image.fromarray(pixels[index]).save(target / f"{index:05}.png")


def rows(name: str, results: Path, settings: Path) -> str:
    """Add the scores in ``results``, a run by ``settings``, to docs/data/converged.csv."""
    params = experiment.load(settings)
    table = pd.read_csv(results).dropna(subset=["test_score"])
    facts = {
        "experiment": experiment_id(params.model_dump(mode="json", exclude_none=True)),
        "data": name,
        "network": params.network.name,
        "pretrain_epochs": params.pretrain.epochs,
        "retrain_epochs": params.retrain.epochs,
        "m": params.m,
        "target_sparsity": params.target_sparsity,
    }
    columns = ["method", "phase", "seed", *SCORES]
    new = table.reindex(columns=columns).round(dict.fromkeys(SCORES, 6))
    for place, (key, value) in enumerate(facts.items()):
        new.insert(place, key, value)
    new["golden"] = origin.golden(ROOT)
    new[["torch", "device"]] = table[["torch", "device"]]
    new["date"] = datetime.now(UTC).date().isoformat()
    added = append_rows(ROOT / ROWS, as_text(new, KEY), KEY)
    return f"{name}: {added} of {len(new)} rows are new in {ROWS}\n"


def main() -> None:
    """Write the images, or add rows and print how many are new."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("images", help="write an image folder from Fashion-MNIST")
    writing.add_argument("source", type=Path)
    writing.add_argument("folder", type=Path)
    adding = commands.add_parser("rows", help="add the scores of a run to docs/data/converged.csv")
    adding.add_argument("name", help="the data set, as the tables call it")
    adding.add_argument("results", type=Path, help="reports/results.csv of the run")
    adding.add_argument("settings", type=Path, help="params.yaml of the run")
    flags = parser.parse_args()
    if flags.command == "images":
        images(flags.source, flags.folder)
        return
    try:
        sys.stdout.write(rows(flags.name, flags.results, flags.settings))
    except (OSError, UserError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
