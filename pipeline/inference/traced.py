"""Trace of a network in evaluation mode, with its outputs for two images."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.channels.operations import layer_of, trace
from pipeline.errors import UserError

REMEDY = "compile a network whose forward pass torch.fx can trace"
IMAGES = 2  # of the pass that gives the shapes of all values
EXAMPLE = "example"  # the key of ``graph.meta`` under which are these images, and their outputs


def traced(model: nn.Module, shape: Sequence[int]) -> fx.GraphModule:
    """Return the graph of ``model`` in evaluation mode, with shapes of its values and an `EXAMPLE`.

    Args:
        model: maps float32 [B, C, H, W] to float32 [B, K] or feature maps; left unchanged.
        shape: [C, H, W] of an image.

    Raises:
        UserError: the shape is not three whole numbers of at least 1, or the network is not in
            float32 on the CPU, cannot be traced, has other inputs, normalises with the statistics
            of its batch, cannot take such images, or returns anything but one tensor with a row
            for each.
    """
    sizes = _sizes(shape)
    _check_model(model)
    with _evaluating(model), torch.no_grad():
        graph = trace(model, REMEDY)
        _check_inputs(graph)
        _check_normalisation(graph)
        try:
            images = torch.randn(IMAGES, *sizes, generator=torch.Generator().manual_seed(0))
            result = model(images.clone())
            # After the network's own pass, as it prints the traceback of an error.
            ShapeProp(graph).propagate(images.clone())
        except Exception as error:
            raise UserError(
                f"{type(model).__name__} cannot take images of shape {sizes} ({error}): pass the "
                "shape of its images."
            ) from error
    _check_output(model, result)
    graph.meta[EXAMPLE] = images, result
    return graph


def _sizes(shape: Any) -> list[int]:
    sizes: list[Any] = list(shape) if isinstance(shape, Iterable) else []
    if len(sizes) != 3 or not all(isinstance(size, Integral) and int(size) > 0 for size in sizes):
        raise UserError(
            f"the shape of an image is {shape!r}, but must be [C, H, W], three whole numbers >= 1: "
            "pass one such as (3, 32, 32)."
        )
    return [int(size) for size in sizes]


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise UserError(f"the network is a {type(model).__name__}: pass an nn.Module.")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(tensor):
            raise UserError(f"{name!r} has no shape yet: call the network on an image first.")
        weight = isinstance(tensor, nn.Parameter)
        if tensor.device.type != "cpu" or (weight and tensor.dtype != torch.float32):
            raise UserError(
                f"{name!r} of the network is {tensor.dtype} on {tensor.device}, but must be "
                "float32 on the CPU: convert a copy of the network with .float().cpu()."
            )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in evaluation mode; afterwards its modes and buffers are again as before."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module, _ in modes
        for name, buffer in module.named_buffers(recurse=False)
    ]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, name, buffer, before in buffers:
            setattr(module, name, buffer)
            if not torch.equal(buffer, before):
                buffer.copy_(before)


def _check_inputs(graph: fx.GraphModule) -> None:
    names = [node.name for node in graph.graph.nodes if node.op == "placeholder"]
    if len(names) != 1:
        raise UserError(
            f"the network's forward takes {len(names)} inputs ({', '.join(names)}), but must take "
            "images alone: wrap it in a module whose forward passes the others."
        )


def _check_normalisation(graph: fx.GraphModule) -> None:
    """Refuse a layer that normalises with the statistics of its batch: blocks change them."""
    for node in graph.graph.nodes:
        layer = layer_of(graph, node)
        of_batch = isinstance(layer, _BatchNorm) and (layer.training or layer.running_mean is None)
        if node.target is functional.batch_norm:
            of_batch = node.kwargs.get("training", (*node.args[5:], False)[0])
        if of_batch:
            raise UserError(
                f"the layer {str(node.target) if layer else node.name!r} normalises with the "
                "statistics of the batch in evaluation mode too, so an image's output depends on "
                "the others: use track_running_stats=True and train the network again."
            )


def _check_output(model: nn.Module, result: object) -> None:
    if isinstance(result, Tensor):
        if result.dtype == torch.float32 and result.ndim > 1 and len(result) == IMAGES:
            return
        kind = f"{result.dtype} {list(result.shape)} for {IMAGES} images"
    else:
        kind = f"a {type(result).__name__}"
    raise UserError(
        f"{type(model).__name__} returns {kind}, but must return one float32 tensor with a row for "
        "each image: wrap it in a module whose forward returns the logits."
    )
