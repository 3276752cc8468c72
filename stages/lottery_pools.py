"""Interpolate a ticket with tickets of other sparsities, greedily by validation score."""

import argparse
from pathlib import Path

from pipeline.data.base import load
from pipeline.prune.lottery_pools import interpolate
from pipeline.prune.prunable import prunable
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.merge_inputs import MergeInputs
from pipeline.stagekit.model_folder import network, read, write
from pipeline.stagekit.pruning_flags import add_pruning_flags, pruned
from pipeline.storage.checkpoint import write_json
from pipeline.train.device import resolve_device
from pipeline.train.placement import resident

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--ticket", type=Path, required=True, help="of the sparsity of the result")
parser.add_argument("--pool", type=Path, nargs="+", required=True, help="others, nearest first")
parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
parser.add_argument("--out", type=Path, required=True)
add_pruning_flags(parser)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    device = resolve_device(flags.device)
    data = resident(load(flags.data), device)
    ticket, inputs = read(flags.ticket), MergeInputs([flags.ticket], data, device)
    model = network(ticket)
    result = interpolate(
        ticket,
        [read(folder) for folder in flags.pool],
        prunable(model),
        prune=lambda point: pruned(point, model, flags)[0],
        score=inputs.score,
        ticket_score=inputs.scores[0],
    )
    accepted = sum(trial["accepted"] for trial in result.trials)
    with atomic_folder(flags.out) as folder:
        write(folder, result.checkpoint, data, device, interpolated=accepted)
        write_json(folder / "pool.json", {"trials": list(result.trials)})


if __name__ == "__main__":
    run(main, parser)
