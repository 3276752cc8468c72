"""Average networks whose masks differ, and prune the average back to the sparsity (IMP-RePrune)."""

import argparse
from pathlib import Path

from pipeline.checkpoint import sparsity
from pipeline.cli import publish, run
from pipeline.data.base import load
from pipeline.model_folder import network, read, write
from pipeline.prune.parameters import prunable
from pipeline.prune.reprune import AVERAGES, superpose
from pipeline.pruning_flags import add_pruning_flags, pruned
from pipeline.train.device import pick

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--runs", type=Path, nargs="+", required=True)
parser.add_argument("--average", default="cia", choices=AVERAGES)
parser.add_argument("--unaligned", type=Path, nargs="*", help="the runs before, for comparison")
parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
parser.add_argument("--out", type=Path, required=True)
add_pruning_flags(parser)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    data, device = load(flags.data), pick(flags.device)
    runs = [read(folder) for folder in flags.runs]
    model = network(runs[0])
    names = prunable(model)
    average = superpose(runs, names, flags.average)
    found, _ = pruned(average, model, flags)
    numbers = {"sparsity_of_mean": sparsity(average, names)}
    if flags.unaligned:
        before = superpose([read(folder) for folder in flags.unaligned], names, flags.average)
        numbers["sparsity_of_mean_unaligned"] = sparsity(before, names)
    with publish(flags.out) as folder:
        write(folder, found, data, device, **numbers)


if __name__ == "__main__":
    run(main, parser)
