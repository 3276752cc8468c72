"""Measure what one pruning does to a network before retraining, and its second-order prediction.

BatchNorm statistics are re-estimated before and after pruning.
"""

import argparse
from pathlib import Path

from pipeline.data.base import load
from pipeline.evaluate.curvature import gradient, hessian_vector
from pipeline.evaluate.kept_weights import KeptWeights
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import network_on, read
from pipeline.stagekit.split_measures import measure, some
from pipeline.storage.checkpoint import write_json
from pipeline.tasks.base import load as load_task
from pipeline.train.batch_losses import BatchLosses
from pipeline.train.device import resolve_device
from pipeline.train.placement import resident
from pipeline.train.predict import eval_batch_size

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--model", type=Path, required=True, help="before pruning")
parser.add_argument("--pruned", type=Path, required=True)
parser.add_argument("--train-images", type=int, default=2000, help="at most")
parser.add_argument("--seed", type=int, required=True, help="of the batches")
parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage.

    With w before and w + d after pruning the prediction is <g, d> + 1/2 <d, H d>, of the gradient
    and the Hessian of the training loss at w.
    """
    device = resolve_device(flags.device)
    data = resident(load(flags.data), device)
    train = some(data.train, flags.train_images)
    splits = {"train": train, "val": data.val, "test": data.test}
    before, after = read(flags.model), read(flags.pruned)
    measured = {
        "before": measure(before, data, splits, device),
        "after": measure(after, data, splits, device),
    }
    model, pruned = network_on(device, before), network_on(device, after)
    weights, rest = KeptWeights(model, before.masks), KeptWeights(pruned, before.masks)
    step = rest.flatten(rest.parameters) - weights.flatten(weights.parameters)
    loss, size = load_task(data.task).loss, eval_batch_size(train.images)
    losses = BatchLosses(model, train, (data.mean, data.std), loss, size, flags.seed)
    slope = float(gradient(losses, weights) @ step)
    curvature = float(step @ hessian_vector(losses, weights, step)) / 2
    metrics = {
        **measured,
        "step_squared": float(step.square().sum()),
        "slope": slope,
        "curvature": curvature,
        "predicted": slope + curvature,
    }
    with atomic_folder(flags.out) as folder:
        write_json(folder / "metrics.json", metrics)


if __name__ == "__main__":
    run(main, parser)
