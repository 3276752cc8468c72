"""Inputs of a network from the batches of any loader."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError


def inputs_on(device: torch.device, batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Yield the keyword arguments of a network for each batch of a loader, tensors on ``device``.

    A batch is an input, a tuple or list that begins with one, or a dict of keyword arguments; a
    single input has the name "".

    Raises:
        UserError: a batch has no tensor, or no example.
    """
    for batch in batches:
        first = batch[0] if isinstance(batch, list | tuple) and batch else batch
        named = dict(first) if isinstance(first, Mapping) else {"": first}
        if not any(isinstance(value, Tensor) and value.ndim for value in named.values()):
            raise UserError(
                f"a batch is a {type(batch).__name__} without a tensor: it must be an input, a "
                "tuple or list that begins with one, or a dict of keyword arguments."
            )
        if not size(named):
            raise UserError("a batch has no example: leave it out.")
        yield {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in named.items()
        }


def size(inputs: Mapping[str, Any]) -> int:
    """Return the number of examples of a batch of `inputs_on`: the length of its first tensor."""
    return next(len(value) for value in inputs.values() if isinstance(value, Tensor) and value.ndim)


def run(model: nn.Module, inputs: Mapping[str, Any]) -> object:
    """Run ``model`` on a batch of `inputs_on`.

    Raises:
        UserError: the network fails, such as on a batch of another shape or dtype, or of one
            example, which has no variance.
    """
    try:
        return model(inputs[""]) if "" in inputs else model(**inputs)
    except UserError:
        raise
    except Exception as error:
        if "more than 1 value per channel" in str(error):
            raise UserError(
                "a batch of one example has no variance: choose another batch size, or drop the "
                "last batch of the loader."
            ) from error
        given = ", ".join(
            f"{name} {list(value.shape)} {value.dtype}".lstrip()
            for name, value in inputs.items()
            if isinstance(value, Tensor)
        )
        raise UserError(
            f"the network fails on a batch ({given}) with {type(error).__name__}: "
            f"{' '.join(str(error).split()).rstrip('.')}: pass batches that it takes."
        ) from error
