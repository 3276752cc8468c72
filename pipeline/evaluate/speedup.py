"""Speed-up by removal: a network without its pruned filters, compared with the masked one."""

from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from functools import partial
from statistics import median
from time import perf_counter, thread_time
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pipeline.channels.products import macs
from pipeline.errors import UserError
from pipeline.train.modes import evaluating

BATCHES = (1, 64)
TOLERANCE = 1e-5
MIN_ROUNDS, MAX_ROUNDS = 5, 100

Key = TypeVar("Key", bound=Hashable)


def relative_difference(expected: Tensor, other: Tensor) -> float:
    """Return max |expected - other| / max |expected|."""
    return float((expected - other).abs().max() / expected.abs().max())


def output_difference(masked: Tensor, removed: Tensor) -> float:
    """Return `relative_difference` of the logits of the two networks.

    Raises:
        UserError: it is above 1e-5, so the networks are not the same.
    """
    difference = relative_difference(masked, removed)
    if not difference <= TOLERANCE:
        raise UserError(
            f"the network without its pruned filters differs by {difference:g} of the largest "
            "logit, so its masks are not of whole filters: shrink a network that was pruned with "
            "prune.structure = filters."
        )
    return difference


def savings(
    masked: nn.Module, removed: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]
) -> dict[str, Any]:
    """Return parameters, multiply-accumulates and measured times with and without removal.

    Args:
        masked: the network with zeros, on the device where times are measured.
        removed: the network without the pruned filters, on that device too.
        masks: of ``masked``, bool, True where a parameter is kept, by parameter name.
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
    seconds = latencies({"masked": masked, "removed": removed}, images)
    return {
        "masked_ms": 1000 * seconds["masked"],
        "removed_ms": 1000 * seconds["removed"],
        "speedup": seconds["masked"] / seconds["removed"],
    }


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def latencies(
    models: Mapping[str, nn.Module], images: Tensor, seconds: float = 5.0
) -> dict[str, float]:
    """Return the median time of a pass, in seconds, of each of ``models``.

    On the CPU one thread computes, and the time is that thread's CPU time, which leaves out the
    time of other processes on the core. On a GPU the time is from idle to idle, launches included.

    Args:
        models: by name, left unchanged.
        images: float32 [B, C, H, W], the input of every pass, on the models' device.
        seconds: as of `interleaved_medians`.
    """
    with ExitStack() as modes:
        for model in models.values():
            modes.enter_context(evaluating(model))
        modes.enter_context(torch.inference_mode())
        passes = {name: partial(model, images) for name, model in models.items()}
        return interleaved_medians(passes, _clock(images.device), seconds)


def interleaved_medians(
    passes: Mapping[Key, Callable[[], object]],
    clock: Callable[[], float],
    seconds: float = 5.0,
    *,
    warm: bool = False,
) -> dict[Key, float]:
    """Return the median time of each of ``passes`` by ``clock``; PyTorch computes on one thread.

    In every round each pass is made once, so that load affects all alike, and every other round
    goes backwards, so that none gains by its place. The first round (memory allocation, choice of
    kernels) does not count; at least 5 and at most 100 rounds follow, no new one after ``seconds``.
    If ``warm``, an untimed pass comes right before each timed one: passes of different libraries
    evict each other's code and weights from the processor's caches.
    """
    times: dict[Key, list[float]] = {name: [] for name in passes}
    order = list(passes.items())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    begin = perf_counter()
    try:
        for round_number in range(MAX_ROUNDS + 1):
            for name, once in order:
                if warm:
                    once()
                start = clock()
                once()
                times[name].append(clock() - start)
            order.reverse()
            if round_number >= MIN_ROUNDS and perf_counter() - begin > seconds:
                break
    finally:
        torch.set_num_threads(threads)
    return {name: median(each[1:]) for name, each in times.items()}


def _clock(device: torch.device) -> Callable[[], float]:
    """Return a clock, in seconds, that first waits until ``device`` is idle."""
    if device.type != "cuda":
        return thread_time

    def clock() -> float:
        torch.cuda.synchronize(device)
        return perf_counter()

    return clock
