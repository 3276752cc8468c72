"""Retrain one candidate: a copy of a pruned network, under its mask, with a seed of its own."""

import argparse
from pathlib import Path

from pipeline.data.base import load
from pipeline.schedules.pretrain_lr import swa_rates
from pipeline.schedules.retrain_lr import allr_peak, learning_rates
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import network, read, trained_meta, write
from pipeline.stagekit.training_flags import add_training_flags, settings
from pipeline.storage.checkpoint import Checkpoint, load_tensors, read_json, write_json
from pipeline.tasks.base import load as load_task
from pipeline.train.device import resolve_device
from pipeline.train.launch import leave_group, on_all_gpus
from pipeline.train.loop import steps_per_epoch, train
from pipeline.train.placement import resident
from pipeline.train.swa import AverageEpochs

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--parent", type=Path, required=True, help="the pruned network")
parser.add_argument("--dense", type=Path, required=True, help="whose learning rates are reused")
parser.add_argument("--schedule", required=True)
parser.add_argument("--learning-rate", type=float, help="peak, where the schedule has one")
parser.add_argument("--swa-start", type=float, help="fraction after which epochs are averaged")
parser.add_argument("--swa-learning-rate", type=float, help="constant rate from there on")
parser.add_argument("--out", type=Path, required=True)
add_training_flags(parser)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    parent, device = read(flags.parent), resolve_device(flags.device)
    data = resident(load(flags.data), device)
    steps = flags.epochs * steps_per_epoch(len(data.train.labels), flags.batch_size)
    rates = learning_rates(flags.schedule, steps, _trace(flags), peak=_peak(flags))
    hooks = [] if flags.swa_start is None else [AverageEpochs(flags.swa_start, flags.epochs)]
    if hooks and flags.swa_learning_rate is not None:
        first = hooks[0].after * (steps // flags.epochs)
        rates = swa_rates(rates, first, flags.swa_learning_rate)
    model = network(parent)
    history = train(
        model,
        data,
        settings(flags),
        rates,
        seed=flags.seed,
        criterion=load_task(data.task),
        masks=parent.masks,
        hooks=hooks,
        device=device,
    )
    if not leave_group():
        return
    with atomic_folder(flags.out) as folder:
        meta = trained_meta(parent.meta, flags.precision)
        retrained = Checkpoint(model.cpu().state_dict(), parent.masks, meta)
        write(folder, retrained, data, device, learning_rate=max(rates))
        write_json(folder / "history.json", history)


def _trace(flags: argparse.Namespace) -> list[float]:
    rates: list[float] = load_tensors(flags.dense / "learning_rates.safetensors")[
        "learning_rate"
    ].tolist()
    return rates


def _peak(flags: argparse.Namespace) -> float | None:
    """Return the peak rate: as asked for, by ALLR from what pruning did, or the schedule's own."""
    if flags.learning_rate is not None or flags.schedule != "ALLR":
        asked: float | None = flags.learning_rate
        return asked
    pruning = read_json(flags.parent / "metrics.json")
    return allr_peak(
        max(_trace(flags)),
        pruning["norm_drop"],
        pruning["pruned_fraction"],
        flags.epochs,
        read(flags.dense).meta["epochs"],
    )


if __name__ == "__main__":
    run(on_all_gpus(main), parser)
