"""Prune a network while it trains, in all epochs or a part of them; from scratch or a parent."""

import argparse
from pathlib import Path

import torch

from pipeline.data.base import Dataset, load
from pipeline.errors import UserError
from pipeline.seeds import derive
from pipeline.sparsify._paused import Paused, read_paused, save_paused
from pipeline.sparsify.base import Sparsifier
from pipeline.sparsify.build import build
from pipeline.sparsify.config import SparsifyConfig, options
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import network, read, trained_meta, write
from pipeline.stagekit.new_network import new_network
from pipeline.stagekit.training_flags import (
    add_schedule_flags,
    add_training_flags,
    scheduled_rates,
    settings,
)
from pipeline.storage.checkpoint import Checkpoint, save_tensors, write_json
from pipeline.storage.checkpoint import sparsity as fraction_pruned
from pipeline.tasks.base import load as load_task
from pipeline.train.device import resolve_device
from pipeline.train.launch import leave_group, on_all_gpus
from pipeline.train.loop import steps_per_epoch, train
from pipeline.train.placement import resident
from pipeline.train.state import TrainingState

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--network", required=True)
parser.add_argument("--parent", type=Path, help="start from its weights, masks and momentum")
parser.add_argument("--method", required=True, help="a file of pipeline/sparsify")
for option in options():
    flag = f"--{option.name.replace('_', '-')}"
    about = option.metadata["about"]
    parser.add_argument(flag, type=type(option.default), default=option.default, help=about)
parser.add_argument("--from-epoch", type=int, default=0, help="the part of --epochs to train")
parser.add_argument("--to-epoch", type=int)
parser.add_argument("--same-streams", action="store_true", help="continue the parent's streams")
parser.add_argument("--phase", type=int, default=0)
parser.add_argument("--out", type=Path, required=True)
add_schedule_flags(parser)
add_training_flags(parser)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    device = resolve_device(flags.device)
    data = resident(load(flags.data), device)
    end = flags.to_epoch or flags.epochs
    start, state = _start(flags, data)
    epoch = steps_per_epoch(len(data.train), flags.batch_size)
    model, hook = network(start), _hook(flags, end, start, epoch)
    rates = scheduled_rates(flags, flags.epochs * epoch)
    history = train(
        model,
        data,
        settings(flags),
        rates[flags.from_epoch * epoch : end * epoch],
        seed=flags.seed,
        criterion=load_task(data.task),
        hooks=[hook],
        device=device,
        state=state,
    )
    if not leave_group():
        return
    masks = {name: mask.cpu().contiguous() for name, mask in hook.masks.items()}
    meta = trained_meta(start.meta, settings(flags))
    trained = Checkpoint(model.cpu().state_dict(), masks, meta)
    meta.update(sparsity=fraction_pruned(trained, masks), phase=flags.phase)
    with atomic_folder(flags.out) as folder:
        write(folder, trained, data, device)
        learning_rates = {"learning_rate": torch.tensor(rates, dtype=torch.float64)}
        save_tensors(folder / "learning_rates.safetensors", learning_rates)
        write_json(folder / "history.json", history)
        if end < flags.epochs:
            buffers = trained.state.keys() - dict(model.named_parameters()).keys()
            weights = {name: each for name, each in trained.state.items() if name in buffers}
            weights |= {name: each.cpu() for name, each in hook.dense.items()}
            save_paused(folder, Paused(weights, state.momentum, state.streams))


def _start(flags: argparse.Namespace, data: Dataset) -> tuple[Checkpoint, TrainingState]:
    """Return the network to start from, random or the parent's, and the state of its training."""
    if flags.parent:
        paused = read_paused(flags.parent)
        state = paused.training(flags.from_epoch, same_streams=flags.same_streams)
        return paused.resumed(read(flags.parent)), state
    model, meta = new_network(flags.network, data, flags.seed)
    meta["epochs"] = flags.epochs
    return Checkpoint(model.state_dict(), {}, meta), TrainingState(flags.from_epoch)


def _hook(flags: argparse.Namespace, end: int, start: Checkpoint, epoch_steps: int) -> Sparsifier:
    """Return the method's hook for the part of the training after --from-epoch, until ``end``."""
    if not 0 <= flags.from_epoch < end <= flags.epochs:
        raise UserError(
            f"--from-epoch {flags.from_epoch} --to-epoch {end} is no part of {flags.epochs} "
            "epochs: give one that begins before it ends."
        )
    chosen = {option.name: getattr(flags, option.name) for option in options()}
    part = {"epochs": flags.epochs, "begin": flags.from_epoch, "end": end}
    part |= {"epoch_steps": epoch_steps, "seed": derive(flags.seed, "masks")}
    return build(flags.method, SparsifyConfig(**chosen, **part, masks=start.masks or None))


if __name__ == "__main__":
    run(on_all_gpus(main), parser)
