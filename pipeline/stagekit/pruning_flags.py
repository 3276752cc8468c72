"""Flags of the stages that prune, and the pruning that they describe."""

import argparse
from math import isclose
from typing import Any

from torch import nn

from pipeline.errors import UserError
from pipeline.prune.apply import prune
from pipeline.prune.filters import prune_filters
from pipeline.prune.pattern import parse, valid_structure
from pipeline.prune.prunable import prunable
from pipeline.prune.rules import allocation
from pipeline.prune.semi_structured import prune_semi_structured
from pipeline.storage.checkpoint import Checkpoint


def add_pruning_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of sparsity, structure, criterion and allocation."""
    parser.add_argument("--sparsity", type=float, required=True, help="fraction of the weights")
    parser.add_argument(
        "--structure", default="weights", type=valid_structure, help="weights, filters or N:M"
    )
    parser.add_argument("--criterion", default="magnitude", help="of weights")
    parser.add_argument("--allocation", default="global", help="of weights")
    parser.add_argument("--seed", type=int, help="of an allocation that draws at random")


def pruned(
    parent: Checkpoint, model: nn.Module, flags: argparse.Namespace
) -> tuple[Checkpoint, dict[str, Any]]:
    """Return ``parent``, the state of ``model``, pruned by ``flags``, and the pruning's metrics."""
    if flags.structure == "filters":
        return prune_filters(parent, model, flags.sparsity)
    if pattern := parse(flags.structure):
        if not isclose(flags.sparsity, pattern.sparsity):
            raise UserError(
                f"--sparsity is {flags.sparsity:g}, but --structure is {pattern}: set it to "
                f"{pattern.sparsity:g}."
            )
        return prune_semi_structured(parent, model, pattern, flags.criterion)
    return prune(
        parent,
        prunable(model),
        flags.sparsity,
        flags.criterion,
        allocation(flags.allocation, flags.seed),
        parameters=[name for name, _ in model.named_parameters()],
    )
