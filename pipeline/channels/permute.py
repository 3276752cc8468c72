"""Networks with their channels in another order."""

from collections.abc import Mapping

from torch import Tensor

from pipeline.channels.permutation_spec import PermutationSpec
from pipeline.storage.checkpoint import Checkpoint


def permuted(
    tensors: Mapping[str, Tensor], spec: PermutationSpec, order: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return ``tensors`` with channel order[g][i] of every group g in place i, on all its axes.

    Args:
        tensors: a state dict, or masks.
        spec: of their network.
        order: int64 [n], a permutation of 0, ..., n - 1, for each group that moves.
    """
    moved = dict(tensors)
    for name in tensors.keys() & spec.axes.keys():
        for axis, group in enumerate(spec.axes[name]):
            if group in order:
                moved[name] = moved[name].index_select(axis, order[group])
    return moved


def permuted_checkpoint(
    checkpoint: Checkpoint, spec: PermutationSpec, order: Mapping[str, Tensor]
) -> Checkpoint:
    """Return the network that computes the same, masks and statistics moved with its weights."""
    state = permuted(checkpoint.state, spec, order)
    return Checkpoint(state, permuted(checkpoint.masks, spec, order), checkpoint.meta)
