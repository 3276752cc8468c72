"""How long a pass takes, measured: networks run in turns, so that the machine's moods hit all."""

from collections.abc import Mapping
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from pipeline.train.predict import evaluating

FEWEST, MOST = 5, 100  # rounds


def latencies(
    models: Mapping[str, nn.Module], images: Tensor, seconds: float = 5.0
) -> dict[str, float]:
    """Return the median time of a pass, in seconds, of each of ``models`` on the CPU.

    In every round each network does one pass. The first round, in which memory is found and kernels
    are chosen, does not count; then there are at least 5 and at most 100 rounds, no new one after
    ``seconds``.

    Args:
        models: by a name of one's own; left as they were.
        images: float32 [B, C, H, W], what every pass is given.
        seconds: how long to measure.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    begin = perf_counter()
    for turn in range(MOST + 1):
        for name, model in models.items():
            with evaluating(model), torch.inference_mode():
                start = perf_counter()
                model(images)
                times[name].append(perf_counter() - start)
        if turn >= FEWEST and perf_counter() - begin > seconds:
            break
    return {name: median(found[1:]) for name, found in times.items()}
