"""Erdős-Rényi kernel (ERK): the larger a layer's shape, the sparser (Evci et al. 2020)."""

from collections.abc import Mapping

from torch import Tensor

from pipeline.prune.allocations import _proportional
from pipeline.prune.topk import pruned_count


def masks(
    scores: Mapping[str, Tensor], sparsity: float, alive: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the masks that prune exactly floor(s * n + 1/2) of all n weights, by layer shapes.

        density_l = min(1, e * (n_in + n_out + k_w + k_h) / (n_in * n_out * k_w * k_h))

    with e such that the total is exact, so a layer keeps e * (n_in + n_out + k_w + k_h) weights.
    Linear layers have no kernel (Erdős-Rényi), and n_in of a grouped convolution is that of one
    group. Where the cap binds, e grows for the other layers. A layer that is sparser already keeps
    its weights, and the others keep more. At extreme sparsities a layer may keep no weight.
    Arguments, result and errors are those of the global allocation.

    Source: Evci et al. 2020 (RigL), section 3 and appendix; Mocanu et al. 2018.
    """
    kept = sum(mask.numel() for mask in alive.values()) - pruned_count(sparsity, alive)
    counts = _proportional.round_to_total(_proportional.kept_counts(limits(alive), kept), kept)
    return _proportional.masks(scores, counts, alive)


def limits(alive: Mapping[str, Tensor]) -> dict[str, _proportional.Layer]:
    """Return share and limits of each layer; its share is the sum of its dimensions."""
    return {
        name: _proportional.Layer(share=sum(mask.shape), low=0, high=int(mask.count_nonzero()))
        for name, mask in alive.items()
    }
