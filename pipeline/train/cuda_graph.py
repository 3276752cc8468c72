"""CUDA graphs of the training step: captured once a training, then replayed.

Launching the few hundred kernels of a small network's step takes the host longer than the GPU takes
to run them. A graph launches them all at once. It reads and writes fixed addresses, so the batch is
gathered on the GPU, by a step counter that is a tensor too.
"""

import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.train.batches import Batches
from pipeline.train.distributed import world_size
from pipeline.train.hook import Hook
from pipeline.train.step import Step

WARM_UP = 2  # runs that choose kernels and allocate workspaces, before the one that is checked


class HostNeededError(Exception):
    """A step needs the host, for a value or a random number, so it cannot be captured."""


class Eager:
    """Takes each step by calling it."""

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
    """Takes each step by replaying two graphs, between which hooks act as they do in `Eager`.

    Raises: HostNeededError when the network cannot be captured; it is left unchanged.
    """

    def __init__(self, step: Step, batches: Batches) -> None:
        self.start_epoch = batches.shuffle

        def backward() -> None:
            step.backward(*batches.batch(step.taken % len(batches)))

        self.backward, self.update = capture([backward, step.update], step.state())


def stepper(step: Step, batches: Batches, hooks: Sequence[Hook]) -> Eager | Replayed:
    """Return the way to take steps: replayed on one GPU that has the examples in its memory.

    The same step is called eagerly on CPUs and several GPUs, for images that the host decodes and
    sentences (whose batches differ in width), where a hook or the network needs the host, and in a
    training of no more steps than warming up takes, which reads a learning rate for each.
    """
    capturable = (
        step.settings.graph
        and step.on_gpu
        and torch.cuda.is_available()
        and world_size() == 1
        and batches.resident
        and len(step.rates) > WARM_UP
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
    """Return functions that replay ``functions``, called in this order, as CUDA graphs.

    They first run a few times on a side stream; ``tensors`` and random states are then restored.
    Arguments: tensors, all that the functions change.
    Raises: HostNeededError; UserError where the capture fails.
    """
    with _restored(tensors):
        _warm_up(functions)
        return [_captured(function).replay for function in functions]


def _captured(function: Callable[[], None]) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            function()
    except RuntimeError as error:  # out of memory is one of them
        raise UserError(
            f"a training step cannot be captured as a CUDA graph ({str(error).splitlines()[0]}): "
            "set SMS_CUDA_GRAPHS=0, which launches its kernels one by one"
        ) from error
    return graph


def _warm_up(functions: Sequence[Callable[[], None]]) -> None:
    """Run ``functions`` in turn; in the last run check that they do not need the host."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    try:
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
    finally:  # what restores the tensors must come after what is still to be written
        torch.cuda.current_stream().wait_stream(stream)


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Raise HostNeededError if the host waits for the GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns that this mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        # Its frames would keep the autograd graph of the side stream alive, and later steps then
        # add to gradients on that stream.
        traceback.clear_frames(error.__traceback__)
        raise HostNeededError("the network makes the host wait for the GPU") from None
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def _restored(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Restore ``tensors`` and the states of both random generators afterwards."""
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
