"""Measurements of exported files: equality with PyTorch, score, and time of a pass."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import partial
from time import process_time
from typing import TypeVar

import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset
from pipeline.errors import UserError
from pipeline.evaluate.speedup import BATCHES, interleaved_medians
from pipeline.export.formats.base import TOLERANCE, Runner, Source
from pipeline.tasks.base import load as load_task
from pipeline.tasks.base import score

Key = TypeVar("Key", bound=Hashable)


def check_equal(name: str, runner: Runner, source: Source) -> None:
    """Compare ``runner`` with PyTorch on real and random examples, one and several at once.

    Raises:
        UserError: a probability differs by more than 1e-4.
    """
    batches = [source.examples[:1], source.examples]
    if source.examples.dtype == torch.uint8:
        generator = torch.Generator().manual_seed(0)
        shape = (3, *source.examples.shape[1:])
        batches.append(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))
    for images in batches:
        with torch.inference_mode():
            expected = source.served(images)
        # A translator scores only as many tokens as there are, its graph all.
        outputs = runner(images)[..., : expected.shape[-1]]
        difference = float((outputs - expected).abs().max())
        if not difference <= TOLERANCE:
            raise UserError(
                f"the exported {name} differs from PyTorch by {difference:g} in a probability, but "
                f"must be equal to {TOLERANCE:g}: leave {name} out of export."
            )


class _AsNetwork(nn.Module):
    """A runner as a network whose scores are log-probabilities."""

    def __init__(self, runner: Runner) -> None:
        super().__init__()
        self.runner = runner
        self.device = nn.Parameter(torch.empty(0))  # predictions ask where the parameters are

    def forward(self, images: Tensor) -> Tensor:
        """Return log p, the smallest p being float32's."""
        return self.runner(images).clamp(min=torch.finfo(torch.float32).tiny).log()


def score_on_test(runner: Runner, data: Dataset) -> float:
    """Return the task's score of ``runner`` on the test split."""
    task, stored = load_task(data.task), torch.empty(0)  # without a mean nothing is normalised
    unchanged = replace(data, mean=stored, std=stored)
    return score(task, task.predict(_AsNetwork(runner), unchanged, data.test), data.test, data)


def latencies(
    runners: Mapping[Key, Runner], examples: Tensor, seconds: float = 5.0
) -> dict[int, dict[Key, float]]:
    """Return the median milliseconds of a pass of each of ``runners``, by batch size.

    They alternate, and the time is the process's CPU time, which leaves out other processes; each
    runner must compute on one thread.
    """
    medians = {}
    for size in BATCHES:
        copies = examples.repeat(-(-size // len(examples)), *[1] * (examples.ndim - 1))
        passes = {name: partial(run, copies[:size]) for name, run in runners.items()}
        seconds_of = interleaved_medians(passes, process_time, seconds, warm=True)
        medians[size] = {name: 1000 * value for name, value in seconds_of.items()}
    return medians
