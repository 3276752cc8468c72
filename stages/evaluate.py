"""Measure one network: accuracy, calibration, groups, and what its sparsity could save."""

import argparse
from pathlib import Path

from pipeline.checkpoint import load_tensors, write_json
from pipeline.cli import publish, run
from pipeline.data.base import load
from pipeline.evaluate.cost import cost
from pipeline.evaluate.metrics import accuracy, loss, summary
from pipeline.model_folder import network, read

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--groups", action="store_true", help="the recall of every group")
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    data, checkpoint = load(flags.data), read(flags.model)
    logits = load_tensors(flags.model / "logits.safetensors")
    named = {name: (group.ids, group.names) for name, group in data.groups.items()}
    sets = {name: named[name] for name in named.keys() - {"classes"}}  # `summary` has the classes
    metrics = {
        "val_accuracy": accuracy(logits["val"], data.val.labels),
        "val_loss": loss(logits["val"], data.val.labels),
        "sparsity": checkpoint.meta["sparsity"],
        **summary(logits["test"], data.test.labels, data.classes, sets if flags.groups else None),
        **cost(network(checkpoint), checkpoint.masks, tuple(data.test.images.shape[1:])),
    }
    with publish(flags.out) as folder:
        write_json(folder / "metrics.json", metrics)


if __name__ == "__main__":
    run(main, parser)
