"""Data parallelism: the shard of a batch that each process computes, and sums over processes.

All processes hold equal weights and draw the same order of the data. Each computes its shard of
every batch; gradients and counts are summed over all processes before they are used, so that all
take the same step. Outside of torchrun a single process computes whole batches.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of processes that train together; 1 outside of a group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number among them, from 0; only number 0 prints and writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def shard(count: int, number: int, of: int) -> slice:
    """Return the rows of ``count`` examples that process ``number`` of ``of`` computes.

    Rows floor(r n / G) to floor((r + 1) n / G): contiguous, sizes differ by one at most.
    """
    return slice(number * count // of, (number + 1) * count // of)


def local_shard(count: int) -> slice:
    """Return the rows of ``count`` examples that this process computes."""
    return shard(count, rank(), world_size())


def all_reduce_sum(numbers: Tensor) -> Tensor:
    """Return ``numbers`` summed over all processes."""
    if world_size() > 1:
        dist.all_reduce(numbers := numbers.clone())
    return numbers


def all_reduce_mean(sums: Iterable[Tensor], count: Tensor) -> None:
    """Replace sums over this process's examples by means over all processes' examples, in place.

        x  <-  sum_r x_r / sum_r n_r

    Every process ends with the same bits. Sums are passed, not means, because shards and the number
    of counted positions differ. All tensors are sent in one message.

    Arguments: sums, float, such as the gradients of a sum of losses; count, n_r.
    """
    tensors = [tensor.detach() for tensor in sums]
    flat = torch.cat([*(tensor.flatten() for tensor in tensors), count.to(tensors[0]).view(1)])
    dist.all_reduce(flat)
    *parts, counted = torch.split(flat, [*(tensor.numel() for tensor in tensors), 1])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_((part / counted).view(tensor.shape))
