"""Flags of the stages that prune, and the pruning that they describe."""

import argparse
from typing import Any

from torch import nn

from pipeline.prune.network import prune_network
from pipeline.prune.pattern import valid_structure
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
    return prune_network(
        parent,
        model,
        flags.sparsity,
        structure=flags.structure,
        criterion=flags.criterion,
        allocation=flags.allocation,
        seed=flags.seed,
    )
