"""Pruning of a network: of single weights by criterion and allocation, or of whole filters."""

from typing import Any

from torch import nn

from pipeline.errors import UserError
from pipeline.prune.apply import prune
from pipeline.prune.filters import prune_filters
from pipeline.prune.prunable import prunable
from pipeline.prune.rules import allocation as allocation_of
from pipeline.storage.checkpoint import Checkpoint

STRUCTURES = ("weights", "filters")


def prune_network(  # noqa: PLR0913
    parent: Checkpoint,
    model: nn.Module,
    sparsity: float,
    *,
    structure: str = "weights",
    criterion: str = "magnitude",
    allocation: str = "global",
    seed: int | None = None,
) -> tuple[Checkpoint, dict[str, Any]]:
    """Return ``parent``, the state of ``model``, pruned to ``sparsity``, and metrics.

    Args:
        parent: left unchanged, as is ``model``.
        model: the network; its names say what is prunable, and filters need its graph.
        sparsity: a fraction in [0, 1) of the prunable weights, or of each layer's filters.
        structure: one of `STRUCTURES`.
        criterion: of weights, a name in pipeline/prune/criteria.
        allocation: of weights, a name in pipeline/prune/allocations.
        seed: of an allocation that draws at random.

    Returns:
        See `pipeline.prune.apply.prune` and `pipeline.prune.filters.prune_filters`.

    Raises:
        UserError: an unknown structure, and the errors of these two.
    """
    if structure not in STRUCTURES:
        raise UserError(f"prune.structure is {structure!r}: use one of {', '.join(STRUCTURES)}.")
    if structure == "filters":
        return prune_filters(parent, model, sparsity)
    return prune(
        parent,
        prunable(model),
        sparsity,
        criterion,
        allocation_of(allocation, seed),
        parameters=[name for name, _ in model.named_parameters()],
    )
