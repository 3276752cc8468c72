"""Prune a network to a sparsity: rank its weights, remove the lowest, record what that did."""

import argparse
from pathlib import Path

from pipeline.checkpoint import save, write_json
from pipeline.cli import publish, run
from pipeline.model_folder import MODEL, network, read
from pipeline.prune.apply import prune
from pipeline.prune.parameters import prunable
from pipeline.prune.rules import allocation

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--parent", type=Path, required=True)
parser.add_argument("--phase", type=int, required=True)
parser.add_argument("--sparsity", type=float, required=True, help="fraction of the weights")
parser.add_argument("--criterion", required=True)
parser.add_argument("--allocation", required=True)
parser.add_argument("--seed", type=int, help="of an allocation that draws at random")
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    parent = read(flags.parent)
    model = network(parent)
    pruned, metrics = prune(
        parent,
        prunable(model),
        flags.sparsity,
        flags.criterion,
        allocation(flags.allocation, flags.seed),
        parameters=[name for name, _ in model.named_parameters()],
    )
    pruned.meta["phase"] = flags.phase
    with publish(flags.out) as folder:
        save(folder / MODEL, pruned)
        write_json(folder / "metrics.json", metrics)


if __name__ == "__main__":
    run(main, parser)
