"""Compiled inference of convolutional classifiers on the CPU, fast for unstructured sparsity."""

from collections.abc import Sequence

from torch import nn

from pipeline.inference.fuse import fuse
from pipeline.inference.lower import lower
from pipeline.inference.network import SparseNetwork

__all__ = ["SparseNetwork", "compile"]


def compile(model: nn.Module, shape: Sequence[int], threads: int = 1) -> SparseNetwork:  # noqa: A001
    """Return ``model`` in evaluation mode as a compiled network.

    Args:
        model: an image classifier with zeros where its weights are pruned; left unchanged.
        shape: [C, H, W] of an image.
        threads: that compute at once.

    Raises:
        UserError: torch.fx cannot trace the network.
    """
    network = lower(model, shape)
    fuse(network)
    return SparseNetwork(network, threads)
