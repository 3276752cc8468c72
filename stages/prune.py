"""Prune a network to a sparsity: rank its weights, remove the lowest, record what that did."""

import argparse
from pathlib import Path

from pipeline.checkpoint import save, write_json
from pipeline.cli import publish, run
from pipeline.model_folder import MODEL, network, read
from pipeline.prune.apply import prune
from pipeline.prune.filters import prune_filters
from pipeline.prune.parameters import prunable

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--parent", type=Path, required=True)
parser.add_argument("--phase", type=int, required=True)
parser.add_argument("--sparsity", type=float, required=True, help="fraction of the weights")
parser.add_argument("--structure", default="weights", choices=["weights", "filters"])
parser.add_argument("--criterion", default="magnitude", help="of weights")
parser.add_argument("--allocation", default="global", help="of weights")
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    parent = read(flags.parent)
    model = network(parent)
    if flags.structure == "filters":
        pruned, metrics = prune_filters(parent, model, flags.sparsity)
    else:
        pruned, metrics = prune(
            parent,
            prunable(model),
            flags.sparsity,
            flags.criterion,
            flags.allocation,
            parameters=[name for name, _ in model.named_parameters()],
        )
    pruned.meta["phase"] = flags.phase
    with publish(flags.out) as folder:
        save(folder / MODEL, pruned)
        write_json(folder / "metrics.json", metrics)


if __name__ == "__main__":
    run(main, parser)
