"""Compilation of a network, and the file of a compiled network."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.inference import costs
from pipeline.inference.check import check
from pipeline.inference.fuse import fuse
from pipeline.inference.library import best_isa
from pipeline.inference.lower import lower
from pipeline.inference.network import SparseNetwork
from pipeline.inference.operations import Floats, Network, Operation, Shape
from pipeline.inference.traced import EXAMPLE, traced
from pipeline.storage.sparse_codec import Kind, pack, unpack
from pipeline.storage.tensors import BROKEN, damaged, read, save_tensors

__all__ = ["SparseNetwork", "compile", "load", "save"]

FORMAT = "sparse-model-soups-inference"
VERSION = 1
DIGEST = "sha256"
TOLERANCE = 1e-3  # of outputs, relative to the largest; rounding changes some 1e-6 of it
SLACK = 1e-6  # for outputs that are all near 0


def compile(model: nn.Module, shape: Sequence[int], threads: int = 1) -> SparseNetwork:  # noqa: A001
    """Return ``model`` in evaluation mode as a compiled network.

    BatchNorm is folded into the weights, ReLU and residual additions are fused. A layer is computed
    densely where the table of costs says that this is faster.

    Args:
        model: an image classifier with zeros where its weights are pruned; left unchanged.
        shape: [C, H, W] of an image.
        threads: that compute at once, each a block of images; at least 1.

    Raises:
        UserError: the network, the shape or the number of threads is not as above (`traced`),
            SMS_INFERENCE_ISA or the table of costs is wrong, or outputs differ from the network's.
    """
    graph = traced(model, shape)
    network = lower(graph)
    fuse(network)
    table, isa = costs.load(), best_isa()
    for operation in network.operations:
        if operation.kind == "conv":
            operation.settings["dense"] = _dense(table, isa, network, operation)
    compiled = SparseNetwork(network, threads)
    # A network of its own, so that the memory for these images is free again.
    _check_equal(SparseNetwork(network, 1), *graph.meta[EXAMPLE])
    return compiled


def _check_equal(compiled: SparseNetwork, images: Tensor, expected: Tensor) -> None:
    """Refuse a compiled network with other outputs than the network's for ``images``."""
    difference = (compiled(images) - expected).abs().max()
    if difference > TOLERANCE * expected.abs().max() + SLACK:  # not of NaN, which `save` refuses
        raise UserError(
            f"the compiled network's outputs differ from the network's by {difference:.2g}, so it "
            "cannot be compiled: leave out forward hooks, and operations that change a part of a "
            "tensor in place."
        )


def _dense(table: costs.Table, isa: str, network: Network, operation: Operation) -> bool:
    """Say whether the dense kernel is faster for a convolution."""
    weight, settings = operation.arrays["weight"], operation.settings
    if settings["groups"] > 1:
        return False
    shape = network.shapes[operation.inputs[0]]
    layer = costs.Layer(
        kernel=weight.shape[2],
        stride=settings["stride"][0],
        in_channels=weight.shape[1],
        out_channels=weight.shape[0],
        height=shape.height,
        width=shape.width,
    )
    kept = int(np.count_nonzero(weight)) / weight.size
    return table.microseconds(layer, kept, isa) >= table.dense_microseconds(layer, isa)


def save(network: SparseNetwork, path: Path | str) -> None:
    """Write a compiled network as one safetensors file; kept weights are stored bit for bit.

    Raises:
        UserError: the network has operations without a kernel, which only PyTorch can run, or
            numbers that are not finite.
    """
    path = Path(path)
    tensors: dict[str, torch.Tensor] = {}
    operations = []
    for i, operation in enumerate(network.network.operations):
        _check_writable(path, operation)
        arrays = {}
        for name, array in operation.arrays.items():
            tensor = torch.from_numpy(array)
            kind, where, values = pack(tensor, tensor != 0)
            arrays[name] = [kind, list(array.shape)]
            tensors |= {f"{i}.{name}:{kind}": where, f"{i}.{name}:values": values}
        fields = {"kind": operation.kind, "inputs": operation.inputs, "output": operation.output}
        operations.append({**fields, "settings": operation.settings, "arrays": arrays})
    shapes = {name: list(shape) for name, shape in network.network.shapes.items()}
    header = {"version": VERSION, "operations": operations, "shapes": shapes}
    header["output"] = network.network.output
    header[DIGEST] = _digest(header, tensors)
    save_tensors(path, tensors, {FORMAT: json.dumps(header, sort_keys=True, allow_nan=False)})


def _check_writable(path: Path, operation: Operation) -> None:
    if operation.kind == "torch":
        raise UserError(
            f"{path} is not written because the compiled network calls PyTorch for "
            f"{operation.settings['node']!r}: save the model's state dict instead."
        )
    for name, array in operation.arrays.items():
        if not np.isfinite(array).all():
            raise UserError(
                f"{path} is not written because the {name} of {operation.output!r} holds NaN or "
                "infinity, so training diverged: lower the learning rate."
            )


def load(path: Path | str, threads: int = 1) -> SparseNetwork:
    """Return the network that `save` wrote.

    Args:
        path: the file.
        threads: that compute at once, each a block of images; at least 1.

    Raises:
        UserError: the file is missing, damaged, foreign, or of a newer version, or ``threads`` is
            wrong.
    """
    path = Path(path)
    tensors, metadata = read(path)
    if FORMAT not in metadata:
        raise UserError(
            f"{path} is no compiled network: name a file that pipeline.inference.save wrote."
        )
    try:
        header = json.loads(metadata[FORMAT])
        version = header["version"]
        network = _network(header, tensors) if version == VERSION else None
    except BROKEN as error:
        raise damaged(path, error) from error
    if network is None:
        raise UserError(
            f"{path} has version {version}, this code reads {VERSION}: compile the network again."
        )
    return SparseNetwork(network, threads)


def _digest(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of the header without its digest, and of the tensors by name."""
    rest = {key: value for key, value in header.items() if key != DIGEST}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _network(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Network:
    """Return the checked network of a file; errors of many types are those of `load`."""
    if header.get(DIGEST, digest := _digest(header, tensors)) != digest:  # older files have none
        raise ValueError("the file has other bytes than were written")
    operations = []
    for i, fields in enumerate(header["operations"]):
        arrays = {
            name: _unpacked(tensors, f"{i}.{name}", *code)
            for name, code in fields["arrays"].items()
        }
        plain = {name: fields[name] for name in ("kind", "inputs", "output", "settings")}
        operations.append(Operation(**plain, arrays=arrays))
    shapes = {name: Shape(*shape) for name, shape in header["shapes"].items()}
    network = Network(operations, shapes, header["output"])
    check(network)
    return network


def _unpacked(tensors: dict[str, torch.Tensor], name: str, kind: Kind, shape: list[int]) -> Floats:
    tensor, _ = unpack(kind, tensors[f"{name}:{kind}"], tensors[f"{name}:values"], shape)
    array: Floats = tensor.to(torch.float32).numpy()
    return array
