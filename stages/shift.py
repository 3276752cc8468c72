"""Compare a pruned classifier with the dense one by group: recall, new and corrected errors."""

import argparse
from pathlib import Path
from typing import Any

from pipeline.data.base import Groups, load
from pipeline.evaluate.groups import by_group, compare_with_dense, select_group_set
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import PREDICTIONS, network_on, read
from pipeline.storage.checkpoint import load_tensors, write_json
from pipeline.train.device import resolve_device
from pipeline.train.predict import logits

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--dense", type=Path, help="the network that it was pruned from")
parser.add_argument("--groups", help="a group set; default: the data's first, or its classes")
parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    data = load(flags.data)
    name, groups = select_group_set(data, flags.groups)
    kept = load_tensors(flags.model / PREDICTIONS)["test"]
    metrics: dict[str, Any] = {"set": name, **by_group("test", kept, data.test, data, groups)}
    if groups.train is not None:
        model = network_on(resolve_device(flags.device), read(flags.model))
        outputs = logits(model, data.train.images, data.mean, data.std).cpu()
        of_train = Groups(groups.names, groups.train)
        metrics |= by_group("train", outputs, data.train, data, of_train)
    if flags.dense is not None:
        dense = load_tensors(flags.dense / PREDICTIONS)["test"]
        metrics |= compare_with_dense(dense, kept, data.test, "test", groups)
    with atomic_folder(flags.out) as folder:
        write_json(folder / "metrics.json", metrics)


if __name__ == "__main__":
    run(main, parser)
