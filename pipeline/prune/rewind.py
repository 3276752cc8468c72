"""Weight rewinding: the kept weights go back to an early epoch of pretraining."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.storage.checkpoint import Checkpoint


def rewind(pruned: Checkpoint, early: Checkpoint) -> Checkpoint:
    """Return the network ``early`` under the masks of ``pruned``.

        w = m * w_k

    m are the masks and w_k all weights after epoch k of pretraining; biases, normalisation and
    buffers go back too. Pruned weights are exactly +0.0.

    Args:
        pruned: whose masks and metadata the result has.
        early: the network after epoch k, dense.

    Raises:
        UserError: the two are not one network.

    Source: Frankle et al. 2020, Algorithm 2 (IMP with rewinding to step k); Renda et al. 2020,
        section 2 (weight rewinding).
    """
    _check(pruned.state, early.state)
    kept = {name: torch.where(mask, early.state[name], 0.0) for name, mask in pruned.masks.items()}
    return Checkpoint(dict(early.state) | kept, pruned.masks, pruned.meta)


def _check(pruned: Mapping[str, Tensor], early: Mapping[str, Tensor]) -> None:
    for name in dict.fromkeys([*pruned, *early]):
        if name not in pruned or name not in early or pruned[name].shape != early[name].shape:
            raise UserError(
                f"the pruned network and the early one differ in {name!r}: rewind a network to an "
                "epoch of its own pretraining."
            )
