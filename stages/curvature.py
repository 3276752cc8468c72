"""Measure the training loss's curvature and gradient noise at a network, over its kept weights.

BatchNorm normalises by the statistics of each batch, as in training (pipeline/train/batch_losses).
"""

import argparse
from functools import partial
from pathlib import Path

from pipeline.data.base import load
from pipeline.errors import UserError
from pipeline.evaluate.curvature import (
    batch_gradients,
    hessian_vector,
    largest_eigenvalue,
    trace,
)
from pipeline.evaluate.gradient_noise import gradient_noise
from pipeline.evaluate.kept_weights import KeptWeights
from pipeline.seeds import derive
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import network_on, read
from pipeline.stagekit.split_measures import some
from pipeline.storage.checkpoint import write_json
from pipeline.tasks.base import load as load_task
from pipeline.train.batch_losses import BatchLosses
from pipeline.train.device import resolve_device
from pipeline.train.placement import resident
from pipeline.train.predict import eval_batch_size

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--train-images", type=int, default=2000, help="at most")
parser.add_argument("--batch-size", type=int, required=True, help="of the gradients' noise")
parser.add_argument("--probes", type=int, default=20, help="random vectors for the trace")
parser.add_argument("--seed", type=int, required=True, help="of the vectors and batches")
parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    device, checkpoint = resolve_device(flags.device), read(flags.model)
    data = resident(load(flags.data), device)
    split, loss = some(data.train, flags.train_images), load_task(data.task).loss
    if len(split) <= flags.batch_size:
        mend = f"raise study.landscape.images above {flags.batch_size}, or "
        raise UserError(
            f"the noise of gradients needs two batches, but {len(split)} training images are one "
            f"batch of {flags.batch_size}: {mend if len(data.train) > flags.batch_size else ''}"
            "lower pretrain.batch_size"
        )
    model = network_on(device, checkpoint)
    weights = KeptWeights(model, checkpoint.masks)
    seeds = {name: derive(flags.seed, name) for name in ("order", "lanczos", "probes")}
    batches = partial(BatchLosses, model, split, (data.mean, data.std), loss)
    whole = batches(eval_batch_size(split.images), seeds["order"])
    product = partial(hessian_vector, whole, weights)
    eigenvalue = largest_eigenvalue(product, weights.count, seed=seeds["lanczos"])
    mean, error = trace(product, weights.count, probes=flags.probes, seed=seeds["probes"])
    small = batches(flags.batch_size, seeds["order"])
    noise, squared = gradient_noise(each for _, each in batch_gradients(small, weights))
    metrics = {
        "train_loss": sum(share * float(value.detach()) for share, value in whole()),
        "eigenvalue": eigenvalue,
        "trace": mean,
        "trace_error": error,
        "gradient_noise": noise,
        "gradient_norm_squared": squared,
        "norm_squared": float(weights.flatten(weights.parameters).square().sum()),
        "weights": weights.count,
    }
    with atomic_folder(flags.out) as folder:
        write_json(folder / "metrics.json", metrics)


if __name__ == "__main__":
    run(main, parser)
