"""Steps as CUDA graphs: captured once a training, then replayed without the host's work.

Launching the few hundred kernels of a small network's step takes the host longer than the GPU takes
to run them. A graph launches them all at once. Its tensors lie where they lay when it was captured:
the batch is gathered on the GPU, by a counter that is a tensor too.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from pipeline.train.batches import Batches
from pipeline.train.distributed import world
from pipeline.train.hook import Hook
from pipeline.train.step import Step

WARM_UP = 2  # before the one that is watched: kernels are chosen and workspaces allocated


class HostNeededError(Exception):
    """A step waits for the host or draws on it, so it cannot be captured."""


class Eager:
    """Takes every step by calling it."""

    def __init__(self, step: Step, batches: Batches) -> None:
        self.step, self.batches = step, batches
        self.update = step.update

    def start_epoch(self) -> None:
        """Begin an epoch's batches."""
        self.stream = self.batches.epoch()

    def backward(self) -> None:
        """Set the gradients of the next batch."""
        self.step.backward(*next(self.stream))


class Replayed:
    """Takes every step by replaying two graphs, between which hooks act as they do in `Eager`.

    Raises: HostNeededError when the network cannot be captured; it is left as it was.
    """

    def __init__(self, step: Step, batches: Batches) -> None:
        self.start_epoch = batches.shuffle

        def backward() -> None:
            step.backward(*batches.batch(step.taken % len(batches)))

        self.backward, self.update = capture([backward, step.update], step.state())


def stepper(step: Step, batches: Batches, hooks: Sequence[Hook]) -> Eager | Replayed:
    """Return what takes the steps: captured on one GPU with the examples in its memory.

    Images that the host decodes, sentences, whose batches differ in width, several GPUs, CPUs, and
    hooks that ask for it call the same step eagerly, and so does a network that needs the host.
    """
    capturable = (
        step.settings.graph
        and step.on_gpu
        and torch.cuda.is_available()
        and world() == 1
        and batches.resident
        and all(hook.capturable for hook in hooks)
    )
    if capturable:
        try:
            return Replayed(step, batches)
        except HostNeededError as reason:
            sys.stdout.write(f"steps are launched one by one: {reason}\n")
    return Eager(step, batches)


def capture(
    functions: Sequence[Callable[[], None]], tensors: Sequence[Tensor]
) -> list[Callable[[], None]]:
    """Return functions that replay ``functions``, which belong in this order, as CUDA graphs.

    They are run a few times first, on a stream of their own, and leave no trace.
    Arguments: tensors, all that they change and that must be as before.
    Raises: HostNeededError.
    """
    with _restored(tensors):
        _warm_up(functions)
        return [_captured(function).replay for function in functions]


def _captured(function: Callable[[], None]) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph


def _warm_up(functions: Sequence[Callable[[], None]]) -> None:
    """Run ``functions`` in turn, and at last find out whether they need the host."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            for function in functions:
                function()
        drawn = torch.get_rng_state()
        with _no_waiting():
            for function in functions:
                function()
        if not torch.equal(drawn, torch.get_rng_state()):
            raise HostNeededError("the network draws random numbers on the CPU")
    torch.cuda.current_stream().wait_stream(stream)


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Raise HostNeededError where the host waits for the GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        raise HostNeededError("the network makes the host wait for the GPU") from error
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def _restored(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Put ``tensors`` and the state of both random generators back afterwards."""
    before = [tensor.detach().clone() for tensor in tensors]
    host, gpu = torch.get_rng_state(), torch.cuda.get_rng_state()
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
        torch.set_rng_state(host)
        torch.cuda.set_rng_state(gpu)
