"""Pruning of a network: of single weights, of whole filters, or of N in every M weights."""

from math import isclose
from numbers import Real
from typing import Any

from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.prune.apply import prune
from pipeline.prune.filters import prune_filters
from pipeline.prune.pattern import check_ranking, parse, valid_structure
from pipeline.prune.prunable import prunable
from pipeline.prune.rules import allocation as allocation_of
from pipeline.prune.semi_structured import prune_semi_structured
from pipeline.storage.checkpoint import Checkpoint


def prune_network(  # noqa: PLR0913
    parent: Checkpoint,
    model: nn.Module,
    sparsity: float,
    *,
    structure: str = "weights",
    criterion: str = "magnitude",
    allocation: str = "global",
    seed: int | None = None,
    example: Tensor | None = None,
) -> tuple[Checkpoint, dict[str, Any]]:
    """Return ``parent``, the state of ``model``, pruned to ``sparsity``, and metrics.

    Args:
        parent: left unchanged, as is ``model``.
        model: the network; its names say what is prunable, and filters need its graph.
        sparsity: a fraction in [0, 1) of the prunable weights, or of each layer's filters; with N:M
            it must be 1 - N/M.
        structure: weights, filters or N:M, such as 2:4.
        criterion: of weights and N:M, a name in pipeline/prune/criteria.
        allocation: of weights, a name in pipeline/prune/allocations.
        seed: of an allocation that draws at random.
        example: one input [1, ...], of an allocation that weighs costs.

    Returns:
        See `pipeline.prune.apply.prune`, `pipeline.prune.filters.prune_filters` and
        `pipeline.prune.semi_structured.prune_semi_structured`.

    Raises:
        UserError: an unknown structure, a sparsity that is no number or that N:M does not have, a
            ranking that the structure would not use, and the errors of these.
    """
    if not _is_number(sparsity):
        raise UserError(f"the sparsity is {sparsity!r}: it must be a number in [0, 1).")
    try:
        valid_structure(structure)
    except ValueError as error:
        raise UserError(f"the structure is {structure!r}: use {error}.") from None
    check_ranking(structure, criterion, allocation)
    if structure == "filters":
        return prune_filters(parent, model, sparsity)
    if pattern := parse(structure):
        if not isclose(sparsity, pattern.sparsity):
            raise UserError(
                f"the sparsity is {sparsity:g}, but the structure is {pattern}: set it to "
                f"{pattern.sparsity:g}."
            )
        return prune_semi_structured(parent, model, pattern, criterion)
    return prune(
        parent,
        prunable(model),
        sparsity,
        criterion,
        allocation_of(allocation, seed, model, example),
        parameters=[name for name, _ in model.named_parameters()],
    )


def _is_number(value: object) -> bool:
    return isinstance(value, Real)
