"""Uniform+: uniform, but a dense first convolution and a classifier at most 80 % sparse."""

from collections.abc import Mapping

from torch import Tensor

from pipeline.errors import UserError
from pipeline.prune.allocations import _proportional
from pipeline.prune.topk import pruned_count


def masks(
    scores: Mapping[str, Tensor], sparsity: float, alive: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the masks that prune exactly floor(s * n + 1/2) of all n weights.

        first convolution: 0        last linear layer: min(u, 4/5)        every other layer: u

    are the sparsities, with u such that the total is exact. The first convolution is the first
    weight of three or more dimensions, the last linear layer the last of two; a network without
    one has no such exception. A layer that is sparser already keeps its weights, and the others
    keep more. Arguments and result are those of the global allocation.

    Raises:
        UserError: more than s is pruned already, or s is more than the exceptions allow.

    Source: Gale et al. 2019, section 3; Sparse Model Soups, appendix A.2 (UNIFORM+).
    """
    total = sum(mask.numel() for mask in alive.values())
    kept = total - pruned_count(sparsity, alive)
    layers = limits(alive)
    fewest = sum(layer.low for layer in layers.values())
    if kept < fewest:
        raise UserError(
            f"a sparsity of {sparsity:g} is more than the {1 - fewest / total:g} that uniform_plus "
            "can prune, which leaves the first convolution dense and a fifth of the last linear "
            "layer: lower the target sparsity or choose another prune.allocation."
        )
    counts = _proportional.round_to_total(_proportional.kept_counts(layers, kept), kept)
    return _proportional.masks(scores, counts, alive)


def limits(alive: Mapping[str, Tensor]) -> dict[str, _proportional.Layer]:
    """Return share and limits of each layer; its share is its size."""
    convolutions = [name for name, mask in alive.items() if mask.dim() > 2]
    linear = [name for name, mask in alive.items() if mask.dim() == 2]
    layers = {}
    for name, mask in alive.items():
        size, alive_count = mask.numel(), int(mask.count_nonzero())
        low = 0
        if name in convolutions[:1]:
            low = alive_count
        elif name in linear[-1:]:
            low = min(alive_count, -(-size // 5))  # a fifth, rounded up: at most 80 % is pruned
        layers[name] = _proportional.Layer(share=size, low=low, high=alive_count)
    return layers
