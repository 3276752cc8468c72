"""Permuted networks: the channels of state dicts and masks in another order."""

from collections.abc import Mapping

from torch import Tensor

from pipeline.channels.permutation_spec import PermutationSpec
from pipeline.storage.checkpoint import Checkpoint


def permuted(
    tensors: Mapping[str, Tensor], spec: PermutationSpec, order: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return ``tensors`` with channel ``order[g][i]`` of each group g at position i, on all axes.

    Args:
        tensors: a state dict, or masks.
        spec: the groups of channels of their network.
        order: by group, int64 [n], a permutation of 0, ..., n - 1.
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
    """Return the permuted network, which has the same outputs; masks and statistics included."""
    state = permuted(checkpoint.state, spec, order)
    return Checkpoint(state, permuted(checkpoint.masks, spec, order), checkpoint.meta)
