"""DPF's pruning step between two soups: average the copies' dense weights, and mask the mean."""

import argparse
from pathlib import Path

from pipeline.average import check, mean
from pipeline.checkpoint import Checkpoint, save, save_tensors, write_json
from pipeline.cli import publish, run
from pipeline.model_folder import MODEL, network, read
from pipeline.prune.apply import prune
from pipeline.prune.parameters import prunable
from pipeline.sparsify.parts.dense import DENSE, with_dense

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--copies", type=Path, nargs="+", required=True)
parser.add_argument("--phase", type=int, required=True)
parser.add_argument("--sparsity", type=float, required=True, help="fraction of the weights")
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    copies = [with_dense(read(folder), folder) for folder in flags.copies]
    check(copies)
    dense = Checkpoint(mean([copy.state for copy in copies]), {}, copies[0].meta)
    model = network(dense)
    names = prunable(model)
    parameters = [name for name, _ in model.named_parameters()]
    pruned, metrics = prune(dense, names, flags.sparsity, parameters=parameters)
    pruned.meta["phase"] = flags.phase
    with publish(flags.out) as folder:
        save(folder / MODEL, pruned)
        save_tensors(folder / DENSE, {name: dense.state[name] for name in names})
        write_json(folder / "metrics.json", metrics)


if __name__ == "__main__":
    run(main, parser)
