"""Networks with their channels in another order."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from pipeline.checkpoint import Checkpoint

STAYS = ""  # the group of channels that keep their place


@dataclass
class Symmetry:
    """The groups of channels that move together.

    Attributes:
        sizes: the number of channels of each group, by the layer that opens it.
        axes: for every tensor of the state dict that has channels of a group, the group of each
            of its first axes; STAYS, and axes beyond these, keep their order.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def permuted(
    tensors: Mapping[str, Tensor], symmetry: Symmetry, order: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return ``tensors`` with channel order[g][i] of every group g in place i, on all its axes.

    Args:
        tensors: a state dict, or masks.
        symmetry: of their network (pipeline.align.symmetry).
        order: int64 [n], a permutation of 0, ..., n - 1, for each group that moves.
    """
    moved = dict(tensors)
    for name in tensors.keys() & symmetry.axes.keys():
        for axis, group in enumerate(symmetry.axes[name]):
            if group in order:
                moved[name] = moved[name].index_select(axis, order[group])
    return moved


def permuted_checkpoint(
    checkpoint: Checkpoint, symmetry: Symmetry, order: Mapping[str, Tensor]
) -> Checkpoint:
    """Return the network that computes the same, masks and statistics moved with its weights."""
    state = permuted(checkpoint.state, symmetry, order)
    return Checkpoint(state, permuted(checkpoint.masks, symmetry, order), checkpoint.meta)
