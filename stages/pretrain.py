"""Train the dense network, from scratch or from a file of weights, and keep its learning rates.

With 0 epochs the weights are taken as they are. The learning rates, which retraining goes by, are
then those of a training of one epoch: of the schedule's shape and its largest rate.
"""

import argparse
from pathlib import Path

import torch

from pipeline.data.base import load
from pipeline.models._weights import load_weights
from pipeline.models.build import build
from pipeline.prune.prunable import check_network
from pipeline.schedules.pretrain_lr import pretrain_rates
from pipeline.seeds import derive
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import trained_meta, write
from pipeline.stagekit.training_flags import add_training_flags, settings
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
parser.add_argument("--schedule", required=True)
parser.add_argument("--milestones", type=float, nargs="*", default=[])
parser.add_argument("--warmup", type=float, default=0.0, help="fraction of all steps")
parser.add_argument("--learning-rate", type=float, required=True)
parser.add_argument("--out", type=Path, required=True)
add_training_flags(parser)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    device = resolve_device(flags.device)
    data = resident(load(flags.data), device)
    channels = data.train.images.shape[1]
    torch.manual_seed(derive(flags.seed, "weights"))
    model = build(flags.network, len(data.classes), channels)
    if flags.weights:
        load_weights(model, flags.weights)
    check_network(model, data.train.images[:1])
    steps = max(flags.epochs, 1) * steps_per_epoch(len(data.train.labels), flags.batch_size)
    rates = pretrain_rates(
        flags.schedule,
        steps,
        flags.learning_rate,
        milestones=flags.milestones,
        warmup=flags.warmup,
    )
    taken = rates if flags.epochs else []
    history = train(
        model,
        data,
        settings(flags),
        taken,
        seed=flags.seed,
        criterion=load_task(data.task),
        device=device,
    )
    if not leave_group():
        return
    meta = {
        "network": flags.network,
        "classes": len(data.classes),
        "channels": channels,
        "phase": 0,
        "sparsity": 0.0,
        "epochs": flags.epochs,
    }
    with atomic_folder(flags.out) as folder:
        meta = trained_meta(meta, flags.precision)
        write(folder, Checkpoint(model.cpu().state_dict(), {}, meta), data, device)
        save_tensors(
            folder / "learning_rates.safetensors",
            {"learning_rate": torch.tensor(rates, dtype=torch.float64)},
        )
        write_json(folder / "history.json", history)


if __name__ == "__main__":
    run(on_all_gpus(main), parser)
