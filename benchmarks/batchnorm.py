"""Test accuracy of trained networks by the images that re-estimate BatchNorm: plain or augmented.

    python -m benchmarks.batchnorm data/cifar10 networks/*/model.safetensors

The networks are those of a run on the image folder, whose training had crops of 4 pixels and flips.
A row a network is added to docs/data/batchnorm.csv.
"""

import argparse
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch

from pipeline.bundle.intake import append_rows, as_text
from pipeline.data import image_folder
from pipeline.data.build import prepare
from pipeline.stagekit.model_folder import with_batchnorm_statistics
from pipeline.stagekit.split_measures import some
from pipeline.storage.checkpoint import load
from pipeline.tasks.base import load as load_task

ROWS = Path(__file__).parent.parent / "docs" / "data" / "batchnorm.csv"
CROPS = {"crop_padding": 4, "flip": True}


def main() -> None:
    """Measure the networks and add their rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("networks", type=Path, nargs="+")
    parser.add_argument("--train", type=int, default=5000, help="images that re-estimate")
    parser.add_argument("--test", type=int, default=4000, help="images that are classified")
    options = parser.parse_args()
    data = prepare("image_folder", image_folder.read(options.data, 32), seed=0)
    data = replace(
        data,
        train=some(data.train, options.train),
        val=some(data.val, 2),
        test=some(data.test, options.test),
    )
    task, rows = load_task(data.task), []
    for path in options.networks:
        stored = load(path)
        row = {"network": stored.meta["network"], "sparsity": stored.meta["sparsity"]}
        row |= {"train_images": len(data.train), "test_images": len(data.test)}
        for name, augmentation in (("plain", {}), ("augmented", CROPS)):
            network = replace(stored, meta=stored.meta | {"augmentation": augmentation})
            model, _ = with_batchnorm_statistics(network, data, torch.device("cpu"))
            predictions = task.predict(model, data, data.test)
            row[name] = task.measure(predictions, data.test, data)[task.metric]
        print(row, flush=True)
        rows.append(row | {"torch": torch.__version__, "date": datetime.now(UTC).date()})
    append_rows(ROWS, as_text(pd.DataFrame(rows)), list(rows[0]))


if __name__ == "__main__":
    main()
