"""Pruning step between two parts of a training: average the copies, and prune the mean.

Copies of GMP share a mask, and the mean is pruned further within it. Copies of DPF have dense
weights: these are averaged, and the mean gets a new mask.
"""

import argparse
from pathlib import Path

from pipeline.averaging import check, mean
from pipeline.prune.apply import prune
from pipeline.prune.prunable import prunable
from pipeline.sparsify._paused import average_paused, read_paused, save_paused
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import MODEL, network, read
from pipeline.storage.checkpoint import Checkpoint, save, write_json

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--copies", type=Path, nargs="+", required=True)
parser.add_argument("--phase", type=int, required=True)
parser.add_argument("--sparsity", type=float, required=True, help="fraction of the weights")
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    paused = [read_paused(folder) for folder in flags.copies]
    copies = [each.resumed(read(folder)) for each, folder in zip(paused, flags.copies, strict=True)]
    names = prunable(network(copies[0]))
    dense = any(name in paused[0].weights for name in names)
    check(copies, masks=not dense)
    masks = {} if dense else copies[0].masks
    average = Checkpoint(mean([copy.state for copy in copies]), masks, copies[0].meta)
    parameters = [name for name, _ in network(average).named_parameters()]
    pruned, metrics = prune(average, names, flags.sparsity, parameters=parameters)
    pruned.meta["phase"] = flags.phase
    with atomic_folder(flags.out) as folder:
        save(folder / MODEL, pruned)
        save_paused(folder, average_paused(paused))
        write_json(folder / "metrics.json", metrics)


if __name__ == "__main__":
    run(main, parser)
