"""Measured speed-up: a network without its pruned filters, compared with the masked one."""

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter, thread_time
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.channels.products import macs
from pipeline.errors import UserError
from pipeline.train.predict import evaluating

BATCHES = (1, 64)
TOLERANCE = 1e-5
FEWEST, MOST = 5, 100  # rounds


def output_difference(masked: Tensor, removed: Tensor) -> float:
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


def latencies(
    models: Mapping[str, nn.Module], images: Tensor, seconds: float = 5.0
) -> dict[str, float]:
    """Return the median time of a pass, in seconds, of each of ``models``.

    On one CPU thread it is that thread's own time: on an idle core the clock's, and where other
    stages share the core it leaves out their turns, of which a pass would otherwise hold one or
    none. On a GPU, which computes behind the host's back, it is from when the GPU has nothing left
    to do to when it has nothing left to do again, the launches included. In every round
    each network does one pass. The first round, in which memory is found and kernels are chosen,
    does not count; then there are at least 5 and at most 100, no new one after ``seconds``.

    Args:
        models: by a name of one's own; left as they were.
        images: float32 [B, C, H, W], what every pass is given, where the models are.
        seconds: how long to measure.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    clock = _clock(images.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    begin = perf_counter()
    try:
        for turn in range(MOST + 1):
            for name, model in models.items():
                with evaluating(model), torch.inference_mode():
                    start = clock()
                    model(images)
                    times[name].append(clock() - start)
            if turn >= FEWEST and perf_counter() - begin > seconds:
                break
    finally:
        torch.set_num_threads(threads)
    return {name: median(found[1:]) for name, found in times.items()}


def _clock(device: torch.device) -> Callable[[], float]:
    """Return the clock of what is computed on ``device``, which reads when that is done."""
    if device.type != "cuda":
        return thread_time

    def clock() -> float:
        torch.cuda.synchronize(device)
        return perf_counter()

    return clock
