"""A network without its pruned filters beside the one that has zeros for them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.channels.products import macs
from pipeline.errors import UserError
from pipeline.evaluate.latency import latencies

BATCHES = (1, 64)
TOLERANCE = 1e-5


def difference(masked: Tensor, removed: Tensor) -> float:
    """Return the largest difference of two networks' logits, over the largest logit.

    Raises:
        UserError: it is above 1e-5, so they are not the same network.
    """
    found = float((masked - removed).abs().max() / masked.abs().max())
    if not found <= TOLERANCE:
        raise UserError(
            f"the network without its pruned filters differs by {found:g} of the largest logit, so "
            "its masks are not of whole filters: shrink what prune.structure = filters has pruned."
        )
    return found


def savings(
    masked: nn.Module, removed: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]
) -> dict[str, Any]:
    """Return what removal saves: parameters, multiply-accumulates, and measured times.

    Args:
        masked: the network with zeros, on the device where times are measured.
        removed: the same network without them, on that device too.
        masks: of ``masked``, bool, True where a parameter is kept, by its name.
        shape: of one example, [C, H, W].
    """
    total, left = (sum(p.numel() for p in model.parameters()) for model in (masked, removed))
    example = torch.zeros(1, *shape, device=_device(masked))
    pruned = sum(int((~mask).count_nonzero()) for mask in masks.values())
    return {
        "parameters": {"dense": total, "masked": total - pruned, "removed": left},
        "macs": {
            "dense": sum(macs(masked, example).values()),
            "removed": sum(macs(removed, example).values()),
        },
        "latency": {f"batch_{size}": _latency(masked, removed, (size, *shape)) for size in BATCHES},
    }


def _latency(masked: nn.Module, removed: nn.Module, shape: tuple[int, ...]) -> dict[str, float]:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(_device(masked))
    found = latencies({"masked": masked, "removed": removed}, images)
    return {
        "masked_ms": 1000 * found["masked"],
        "removed_ms": 1000 * found["removed"],
        "speedup": found["masked"] / found["removed"],
    }


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
