"""Prunable weights: the matrices and kernels of convolutions and linear operations."""

from torch import Tensor, nn

from pipeline.channels.products import WEIGHTLESS, macs
from pipeline.errors import UserError

LAYERS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)
REFUSALS = (  # what a network may raise for an example that it cannot take
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError),
    *(TypeError, ValueError),
)
PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def prunable(model: nn.Module) -> list[str]:
    """Return the names of the prunable weights in model order.

    These are the weights of every convolution and linear layer, including stem, shortcuts and
    classifier, and the projections of nn.MultiheadAttention. Biases, normalisation parameters,
    embeddings, tokens and positions stay dense: they are few, and pruning them costs accuracy. A
    classifier that shares its weight with an embedding stays dense too. A weight that other layers
    share is named after the first; `check_network` refuses it for checkpoints, which hold it twice.

    Source: Sparse Model Soups, appendix A.2 (after Evci et al. 2020; Dettmers & Zettlemoyer 2019).
    """
    seen = _embeddings(model)
    names = []
    for prefix, module in model.named_modules():
        attention = isinstance(module, nn.MultiheadAttention)
        if attention or isinstance(module, LAYERS):
            for name in PROJECTIONS if attention else ("weight",):
                weight = getattr(module, name)
                if weight is not None and id(weight) not in seen:
                    seen.add(id(weight))
                    names.append(f"{prefix}.{name}" if prefix else name)
    return names


def check_network(model: nn.Module, example: Tensor) -> None:
    """Refuse a network that cannot run on ``example`` or whose weights cannot all be pruned.

    Args:
        model: the network, on the CPU, left unchanged.
        example: one stored example, as in `macs`.

    Raises:
        UserError: the network cannot run, multiplies by a parameter that is not prunable, or has a
            prunable weight that layers share.
    """
    try:
        multiplied = macs(model, example)
    except REFUSALS as error:
        raise UserError(
            f"the network cannot take examples of shape {list(example.shape[1:])} ({error}): set "
            "data.size to a size that it takes, or network.name to another network."
        ) from error
    _check_shared(model)
    embeddings = _embeddings(model)
    tied = (n for n, p in model.named_parameters(remove_duplicate=False) if id(p) in embeddings)
    known = {name.removesuffix(".weight") for name in (*prunable(model), *tied)}
    for name in multiplied:
        if name not in known | {WEIGHTLESS}:
            raise UserError(
                f"the network multiplies by its parameter {name}, which is no weight of a Conv, "
                "Linear or MultiheadAttention layer, so pruning would leave it dense: make it the "
                "weight of such a layer."
            )


def _check_shared(model: nn.Module) -> None:
    """Refuse a prunable weight with two names: masks would reach the first name only."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in prunable(model):
        for other, parameter in parameters.items():
            if parameter is parameters[name] and other != name:
                raise UserError(
                    f"the network's {name} and {other} are the same weight, which checkpoints hold "
                    "twice, so that pruning would reach only one: give each layer its own, or call "
                    "one layer twice."
                )


def _embeddings(model: nn.Module) -> set[int]:
    return {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
