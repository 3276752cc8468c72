"""Remove pruned filters for good: the smaller network, checked, and measured beside the masked one.

The times differ from run to run, as measured times do; everything else is the same bits.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import small
from pipeline.checkpoint import write_json
from pipeline.cli import publish, run
from pipeline.data.base import Dataset, load
from pipeline.errors import UserError
from pipeline.evaluate.cost import macs
from pipeline.evaluate.latency import latencies
from pipeline.model_folder import MODEL, network, read
from pipeline.structure.shrink import kept_filters, shrink
from pipeline.train.predict import logits

IMAGES = 256  # on which the outputs are compared
BATCHES = (1, 64)
TOLERANCE = 1e-5  # relative to the largest logit

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    data, checkpoint = load(flags.data), read(flags.model)
    masked = network(checkpoint)
    kept = kept_filters(masked, checkpoint.masks)
    with publish(flags.out) as folder:
        file = folder / small.SMALL
        small.save(file, shrink(masked, kept), kept, checkpoint.meta)
        removed = small.load(file)
        gone = sum(int((~mask).sum()) for mask in checkpoint.masks.values())
        shape = tuple(data.test.images.shape[1:])
        metrics: dict[str, Any] = {
            "parameters": {
                "dense": _count(masked),
                "masked": _count(masked) - gone,
                "removed": _count(removed),
            },
            "bytes": {
                "dense": sum(tensor.nbytes for tensor in masked.state_dict().values()),
                "masked": (flags.model / MODEL).stat().st_size,
                "removed": file.stat().st_size,
            },
            "macs": {
                "dense": sum(macs(masked, shape).values()),
                "removed": sum(macs(removed, shape).values()),
            },
            "difference": _difference(masked, removed, data),
            "latency": {
                f"batch_{size}": _latency(masked, removed, size, shape) for size in BATCHES
            },
            "filters": {
                name: {"kept": int(own.count_nonzero()), "filters": len(own)}
                for name, own in kept.items()
            },
        }
        write_json(folder / "metrics.json", metrics)


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _difference(masked: nn.Module, removed: nn.Module, data: Dataset) -> float:
    """Return the largest difference between their logits, over the largest logit."""
    images = data.test.images[:IMAGES]
    one, other = (logits(model, images, data.mean, data.std) for model in (masked, removed))
    found = float((one - other).abs().max() / one.abs().max())
    if not found <= TOLERANCE:
        raise UserError(
            f"the network without its pruned filters differs by {found:g} of the largest logit, so "
            "its masks are not of whole filters: shrink what prune.structure = filters has pruned."
        )
    return found


def _latency(
    masked: nn.Module, removed: nn.Module, batch: int, shape: tuple[int, ...]
) -> dict[str, float]:
    images: Tensor = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
    found = latencies({"masked": masked, "removed": removed}, images)
    return {
        **{f"{name}_ms": 1000 * seconds for name, seconds in found.items()},
        "speedup": found["masked"] / found["removed"],
    }


if __name__ == "__main__":
    run(main, parser)
