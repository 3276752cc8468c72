"""Cost of a network: parameters, multiply-accumulates (MACs), theoretical speed-up by sparsity."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pipeline.channels.products import macs
from pipeline.errors import UserError


def cost(model: nn.Module, masks: Mapping[str, Tensor], example: Tensor) -> dict[str, Any]:
    """Return the network's size and its theoretical speed-up.

    speedup = (sum_l MACs_l + A) / (sum_l MACs_l * kept_l + A), with kept_l the fraction of kept
    entries of weight l, and A the MACs that read no weight (attention's Q K^T and A V), which
    sparsity does not reduce.

    Args:
        model: the network.
        masks: bool, True where a weight is kept, by parameter name; a weight without one is dense.
        example: as in `macs`.

    Returns:
        ``parameters``, ``nonzeros`` (parameters that no mask prunes), ``macs`` and ``sparse_macs``
        (both with A), ``speedup``, ``layers`` {name: {macs, weights, sparsity}} in the order of
        the pass, named as by `macs`.

    Raises:
        UserError: the masks prune every weight.

    Source: paper, Appendix A.2.
    """
    dense = macs(model, example)
    sizes = {
        name.removesuffix(".weight"): weight.numel()
        for name, weight in model.named_parameters(remove_duplicate=False)
    }
    kept = dict.fromkeys(dense, 1.0) | {
        name.removesuffix(".weight"): float(mask.double().mean()) for name, mask in masks.items()
    }
    sparse = sum(count * kept[name] for name, count in dense.items())
    if sparse == 0:
        raise UserError(
            "every weight is pruned, but at least one must be left: lower target_sparsity."
        )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    layers = {
        name: {"macs": count, "weights": sizes[name], "sparsity": 1 - kept[name]}
        for name, count in dense.items()
        if name in sizes
    }
    return {
        "parameters": parameters,
        "nonzeros": parameters - sum(int((~mask).sum()) for mask in masks.values()),
        "macs": sum(dense.values()),
        "sparse_macs": sparse,
        "speedup": sum(dense.values()) / sparse,
        "layers": layers,
    }
