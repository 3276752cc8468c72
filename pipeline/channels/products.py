"""Multiply-accumulates (MACs) of one pass, by the weight that each product reads."""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

WEIGHTLESS = "products without weights"
aten = torch.ops.aten
MATRICES = {aten.mm: 0, aten.bmm: 0, aten.addmm: 1, aten.baddbmm: 1}  # first factor's position
COPIES = (aten.clone, aten._to_copy)


def macs(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Return the multiply-accumulates of one pass over one example, by the weight they read.

    They are counted in PyTorch's product operations, whether layers, functions (F.linear) or
    nn.MultiheadAttention (without its fused kernel) call them.

        convolution         N_out * (C_in / groups) * prod(kernel), N_out output values
        its transpose       N_in * (C_out / groups) * prod(kernel), N_in input values
        A B, [n, k] [k, p]  n * k * p

    A weight used twice counts twice; a weight shared by layers is named after the first one that
    is no embedding. Sizes are those of a real pass, so they include stride, padding and dilation.
    Products of two computed values (attention's Q K^T and A V) are `WEIGHTLESS`. Sums, biases and
    elementwise products are not counted.

    Args:
        model: the network, left unchanged, buffers and mode included.
        example: one stored example, uint8 [1, C, H, W] or token ids. Its values have no effect, and
            a sentence counts at its full length.

    Returns:
        Multiply-accumulates by parameter name without ".weight", in the order of the first use.
    """
    modes = {module: module.training for module in model.modules()}
    fast, counter = torch.backends.mha.get_fastpath_enabled(), _Counter(model)
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval()
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            model(ones_as_input(example))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, training in modes.items():
            module.training = training
    return counter.counts


def ones_as_input(example: Tensor) -> Tensor:
    """Return ones as a network takes examples like this stored one: uint8 pixels as floats."""
    ones = torch.ones_like(example)  # among token ids, 1 is no padding
    return ones.float() if example.dtype == torch.uint8 else ones


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the products of a pass; views of a weight are recognised by the storage they share."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self.copies: list[Tensor] = []  # kept alive, so that no other tensor gets their memory
        modules = model.named_modules()
        for prefix, module in sorted(modules, key=lambda item: isinstance(item[1], nn.Embedding)):
            for name, weight in module.named_parameters(prefix, recurse=False):
                self.names.setdefault(_memory(weight), name.removesuffix(".weight"))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        operation = func.overloadpacket
        if operation is aten.convolution:
            values = args[0] if args[6] else out
            self.count([args[1]], values.numel() * prod(args[1].shape[1:]))
        elif operation in MATRICES:
            one, other = args[MATRICES[operation] :][:2]
            self.count([other, one], out.numel() * one.shape[-1])
        elif operation is aten.mkldnn_rnn_layer:  # the CPU's LSTM
            for weight in args[1:3]:
                self.count([weight], prod(args[0].shape[:2]) * weight.numel())
        elif operation in COPIES and _memory(args[0]) in self.names:
            self.names[_memory(out)] = self.names[_memory(args[0])]
            self.copies.append(out)
        return out

    def count(self, factors: list[Tensor], products: int) -> None:
        """Add ``products`` to the first of ``factors`` that is a weight."""
        names = (self.names.get(_memory(factor)) for factor in factors)
        name = next((name for name in names if name is not None), WEIGHTLESS)
        self.counts[name] = self.counts.get(name, 0) + products


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
