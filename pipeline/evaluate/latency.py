"""How long a pass takes, measured: networks run in turns, so that the machine's moods hit all."""

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter, thread_time

import torch
from torch import Tensor, nn

from pipeline.train.predict import evaluating

FEWEST, MOST = 5, 100  # rounds


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
