"""Train the dense network, from scratch or from a file of weights, and keep its learning rates.

With 0 epochs the weights are kept. The learning rates, which retraining reuses, are then those of
one epoch with the same schedule and peak. With --to-epoch the training ends early, with the bits
that the whole has after that epoch.
"""

import argparse
from pathlib import Path

import torch

from pipeline.data.base import load
from pipeline.errors import UserError
from pipeline.models._weights import load_weights
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import trained_meta, write
from pipeline.stagekit.new_network import new_network
from pipeline.stagekit.training_flags import (
    add_schedule_flags,
    add_training_flags,
    scheduled_rates,
    settings,
)
from pipeline.storage.checkpoint import Checkpoint, save_tensors, write_json
from pipeline.tasks.base import load as load_task
from pipeline.train.device import resolve_device
from pipeline.train.launch import leave_group, on_all_gpus
from pipeline.train.loop import steps_per_epoch, train
from pipeline.train.placement import resident

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--network", required=True)
parser.add_argument("--weights", type=Path)
parser.add_argument("--to-epoch", type=int, help="the last of --epochs to train")
parser.add_argument("--out", type=Path, required=True)
add_schedule_flags(parser)
add_training_flags(parser)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    device = resolve_device(flags.device)
    data = load(flags.data)
    model, meta = new_network(flags.network, data, flags.seed)
    if flags.weights:
        load_weights(model, flags.weights)
    data = resident(data, device)
    epoch = steps_per_epoch(len(data.train), flags.batch_size)
    rates = scheduled_rates(flags, max(flags.epochs, 1) * epoch)
    history = train(
        model,
        data,
        settings(flags),
        rates[: _last_epoch(flags) * epoch],
        seed=flags.seed,
        criterion=load_task(data.task),
        device=device,
    )
    if not leave_group():
        return
    meta |= {"phase": 0, "sparsity": 0.0, "epochs": flags.epochs}
    dense = Checkpoint(model.cpu().state_dict(), {}, trained_meta(meta, settings(flags)))
    with atomic_folder(flags.out) as folder:
        write(folder, dense, data, device)
        learning_rates = {"learning_rate": torch.tensor(rates, dtype=torch.float64)}
        save_tensors(folder / "learning_rates.safetensors", learning_rates)
        write_json(folder / "history.json", history)


def _last_epoch(flags: argparse.Namespace) -> int:
    """Return the number of epochs to train."""
    end: int = flags.epochs if flags.to_epoch is None else flags.to_epoch
    if not 0 <= end <= flags.epochs:
        raise UserError(
            f"--to-epoch is {end}, but must be in [0, {flags.epochs}], an epoch of the training: "
            "lower it, or raise --epochs."
        )
    return end


if __name__ == "__main__":
    run(on_all_gpus(main), parser)
