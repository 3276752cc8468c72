"""One training by several processes: what each takes of a batch, and how they agree on the rest.

All processes hold equal weights and draw the same order of the data. Of every batch each computes
its share, and what it found is summed over all before anything is done with it, so that they take
the same step. Alone, or outside of torchrun, a process has all of every batch and asks nobody.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """Return how many processes train together; 1 outside of a group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number among them, from 0; number 0 speaks and writes for all."""
    return dist.get_rank() if dist.is_initialized() else 0


def shard(count: int, number: int, of: int) -> slice:
    """Return which of ``count`` examples are the share of process ``number`` of ``of``.

    Rows floor(r n / G) to floor((r + 1) n / G): shares follow each other and differ by one at most.
    """
    return slice(number * count // of, (number + 1) * count // of)


def local_shard(count: int) -> slice:
    """Return this process's share of ``count`` examples."""
    return shard(count, rank(), world())


def all_reduce_sum(numbers: Tensor) -> Tensor:
    """Return ``numbers`` summed over all processes."""
    if world() > 1:
        dist.all_reduce(numbers := numbers.clone())
    return numbers


def all_reduce_mean(sums: Iterable[Tensor], count: Tensor) -> None:
    """Turn sums over this process's examples into means over everybody's, in place.

        x  <-  sum_r x_r / sum_r n_r

    Every process ends with the same bits. Sums and not means go in: shares need not be equal, nor
    does every example have as many positions that count. It is one message for all tensors.

    Arguments: sums, float, such as the gradients of a sum of losses; count, n_r.
    """
    tensors = [tensor.detach() for tensor in sums]
    flat = torch.cat([*(tensor.flatten() for tensor in tensors), count.to(tensors[0]).view(1)])
    dist.all_reduce(flat)
    *parts, counted = torch.split(flat, [*(tensor.numel() for tensor in tensors), 1])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_((part / counted).view(tensor.shape))
