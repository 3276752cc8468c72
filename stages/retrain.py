"""Retrain one candidate: a copy of a pruned network, under its mask, with its own seed.

The loop is pipeline/train/loop.py: SGD whose gradients are multiplied by the mask. Learning rates
are pretraining's, carried over by a schedule of pipeline/schedules/retrain_lr.py (by default ALLR).
Options (pipeline/train/retrain_options.py) average the weights, look for flat minima, or distil.
"""

import argparse
from pathlib import Path

from pipeline.data.base import load
from pipeline.schedules.pretrain_lr import swa_rates
from pipeline.schedules.retrain_lr import allr_peak, learning_rates
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import network, read, trained_meta, write
from pipeline.stagekit.retrain_flags import averages, criterion, options, step_type
from pipeline.stagekit.training_flags import add_option_flags, add_training_flags, settings
from pipeline.storage.checkpoint import Checkpoint, load_tensors, read_json, write_json
from pipeline.tasks.base import load as load_task
from pipeline.train.device import resolve_device
from pipeline.train.launch import leave_group, on_all_gpus
from pipeline.train.loop import steps_per_epoch, train
from pipeline.train.placement import resident
from pipeline.train.retrain_options import RetrainOptions
from pipeline.train.swa import AverageEpochs

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--parent", type=Path, required=True, help="the pruned network")
parser.add_argument("--dense", type=Path, required=True, help="whose learning rates are reused")
parser.add_argument("--schedule", required=True)
parser.add_argument("--learning-rate", type=float, help="peak, where the schedule has one")
parser.add_argument("--out", type=Path, required=True)
add_training_flags(parser)
add_option_flags(parser, RetrainOptions)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    parent, device = read(flags.parent), resolve_device(flags.device)
    data = resident(load(flags.data), device)
    chosen = options(flags)
    rates = _rates(flags, steps_per_epoch(len(data.train), flags.batch_size))
    model = network(parent)
    history = train(
        model,
        data,
        settings(flags),
        rates,
        seed=flags.seed,
        criterion=criterion(chosen, load_task(data.task), flags.dense, device),
        masks=parent.masks,
        hooks=averages(chosen, flags.epochs, len(rates)),
        step_type=step_type(chosen),
        device=device,
    )
    if not leave_group():
        return
    meta = trained_meta(parent.meta, settings(flags))
    candidate = Checkpoint(model.cpu().state_dict(), parent.masks, meta)
    with atomic_folder(flags.out) as folder:
        write(folder, candidate, data, device, learning_rate=max(rates))
        write_json(folder / "history.json", history)


def _rates(flags: argparse.Namespace, epoch: int) -> list[float]:
    """Return the learning rate of every step, ``epoch`` steps an epoch."""
    trace = load_tensors(flags.dense / "learning_rates.safetensors")["learning_rate"].tolist()
    peak = flags.learning_rate
    if peak is None and flags.schedule == "ALLR":
        pruning = read_json(flags.parent / "metrics.json")
        peak = allr_peak(
            max(trace),
            pruning["norm_drop"],
            pruning["pruned_fraction"],
            flags.epochs,
            read(flags.dense).meta["epochs"],
        )
    rates = learning_rates(flags.schedule, flags.epochs * epoch, trace, peak=peak)
    if flags.swa_start is not None and flags.swa_learning_rate is not None:
        first = AverageEpochs(flags.swa_start, flags.epochs).after
        rates = swa_rates(rates, first * epoch, flags.swa_learning_rate)
    return rates


if __name__ == "__main__":
    run(on_all_gpus(main), parser)
