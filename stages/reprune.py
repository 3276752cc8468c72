"""Average networks whose masks differ, and prune the average back to the sparsity (IMP-RePrune)."""

import argparse
from pathlib import Path

from pipeline.cli import publish, run
from pipeline.data.base import load
from pipeline.model_folder import network, read, write
from pipeline.prune.parameters import prunable
from pipeline.prune.reprune import reprune, reprune_filters
from pipeline.train.device import pick

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--runs", type=Path, nargs="+", required=True)
parser.add_argument("--sparsity", type=float, required=True, help="fraction of the weights")
parser.add_argument("--structure", default="weights", choices=["weights", "filters"])
parser.add_argument("--criterion", default="magnitude", help="of weights")
parser.add_argument("--allocation", default="global", help="of weights")
parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    data, device = load(flags.data), pick(flags.device)
    runs = [read(folder) for folder in flags.runs]
    model = network(runs[0])
    if flags.structure == "filters":
        pruned, metrics = reprune_filters(runs, model, flags.sparsity)
    else:
        pruned, metrics = reprune(
            runs,
            prunable(model),
            flags.sparsity,
            flags.criterion,
            flags.allocation,
            parameters=[name for name, _ in model.named_parameters()],
        )
    with publish(flags.out) as folder:
        write(folder, pruned, data, device, sparsity_of_mean=metrics["sparsity_of_mean"])


if __name__ == "__main__":
    run(main, parser)
