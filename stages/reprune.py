"""Average networks whose masks differ, and prune the average back to the sparsity (IMP-RePrune)."""

import argparse
from pathlib import Path

from pipeline.data.base import load
from pipeline.prune.prunable import prunable
from pipeline.prune.reprune import AVERAGES, average_union
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import network, read, write
from pipeline.stagekit.pruning_flags import add_pruning_flags, pruned
from pipeline.storage.checkpoint import sparsity
from pipeline.train.device import resolve_device

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--runs", type=Path, nargs="+", required=True)
parser.add_argument("--average", default="cia", choices=AVERAGES)
parser.add_argument(
    "--unaligned", type=Path, nargs="*", help="the runs before matching, for comparison"
)
parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
parser.add_argument("--out", type=Path, required=True)
add_pruning_flags(parser)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    data, device = load(flags.data), resolve_device(flags.device)
    runs = [read(folder) for folder in flags.runs]
    model = network(runs[0])
    names = prunable(model)
    average = average_union(runs, names, flags.average)
    repruned, _ = pruned(average, model, flags)
    numbers = {"sparsity_of_mean": sparsity(average, names)}
    if flags.unaligned:
        before = average_union([read(folder) for folder in flags.unaligned], names, flags.average)
        numbers["sparsity_of_mean_unaligned"] = sparsity(before, names)
    with atomic_folder(flags.out) as folder:
        write(folder, repruned, data, device, **numbers)


if __name__ == "__main__":
    run(main, parser)
