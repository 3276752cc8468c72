"""Prune a network to a sparsity: rank its weights, remove the lowest, record the lost norm."""

import argparse
from pathlib import Path

from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import MODEL, network, read
from pipeline.stagekit.pruning_flags import add_pruning_flags, pruned
from pipeline.storage.checkpoint import save, write_json

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--parent", type=Path, required=True)
parser.add_argument("--data", type=Path, help="of an allocation that weighs costs")
parser.add_argument("--phase", type=int, required=True)
parser.add_argument("--out", type=Path, required=True)
add_pruning_flags(parser)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    parent = read(flags.parent)
    checkpoint, metrics = pruned(parent, network(parent), flags)
    checkpoint.meta["phase"] = flags.phase
    with atomic_folder(flags.out) as folder:
        save(folder / MODEL, checkpoint)
        write_json(folder / "metrics.json", metrics)


if __name__ == "__main__":
    run(main, parser)
