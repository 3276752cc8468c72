"""Flags of the stages that prune, and the pruning that they describe."""

import argparse
from typing import Any

from torch import Tensor, nn

from pipeline.data.base import load
from pipeline.prune.network import prune_network
from pipeline.prune.pattern import valid_structure
from pipeline.prune.rules import COSTED
from pipeline.storage.checkpoint import Checkpoint


def add_pruning_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of sparsity, structure, criterion and allocation.

    An allocation that weighs costs also reads ``--data``, which each stage defines.
    """
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
        example=_example(flags),
    )


def _example(flags: argparse.Namespace) -> Tensor | None:
    """Return one image of the data, for an allocation that weighs costs; else None."""
    if flags.allocation not in COSTED or flags.data is None:
        return None
    return load(flags.data).test.images[:1]
