"""A card that is not there: fake tensors on the device cuda, which have a place but no numbers.

PyTorch's `FakeTensorMode` runs every operation for its shape, dtype and device only, and refuses
operands on two devices as a card would. Where there is no card six things need a stand-in, below:
what is read from a card, autograd's engine (it asks the driver for its streams), `Module.to` (it
exchanges the storage of parameters), page-locked memory, SGD's fused kernel, and files of tensors.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.graph import get_gradient_edge
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

CARD = torch.device("cuda", 0)
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}  # by CPU rows too
ONES = {True: 1.0, False: 1}


class MisplacedError(AssertionError):
    """Operands of one operation are on two devices."""


class Reads(TorchDispatchMode):
    """Refuses operands on two devices, and counts what makes the host wait for the card.

    ``count``, by kind: "number", a scalar that is read; "shape", an output whose size depends on
    numbers; "down", a copy from the card; "up", a copy to the card from memory that is not
    page-locked. Of what is counted in a tensor all is there, other scalars that are read are 1, and
    outputs of unknown size have one row.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    @property
    def waits(self) -> int:
        """How often the host waited for the card."""
        return self.count.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _composite(func):  # whole in inference mode
            with self:
                return func.decompose(*args, **kwargs)
        if func is aten._pin_memory.default:
            return args[0]
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        fake = any(isinstance(one, FakeTensor) for one in tensors) or "device" in kwargs
        if tensors and not fake:  # such as labels that the host compares with predictions
            with _disable_current_modes():
                return func(*args, **kwargs)
        if func is aten._local_scalar_dense.default:
            self._met("number", args[0])
            return getattr(args[0], "all_there", ONES[args[0].dtype.is_floating_point])
        if (shape := _unknown_shape(func, args)) is not None:
            self._met("shape", args[0])
            dtype = args[0].dtype if func is aten.index.Tensor else torch.int64
            return args[0].new_empty(shape, dtype=dtype)
        if func not in COPIES | INDEXED:
            _refuse_two_places(func, tensors)
        result = func(*args, **kwargs)
        if func is aten.count_nonzero.default:
            result.all_there = args[0].numel()
        if func in COPIES:
            self._copied(args[-1] if func is aten.copy_.default else args[0], result, kwargs)
        return result

    def _met(self, kind: str, tensor: Tensor) -> None:
        self.count[kind] += tensor.device.type == "cuda"

    def _copied(self, source: Tensor, result: Tensor, kwargs: dict[str, Any]) -> None:
        ways = source.device.type, result.device.type
        self.count["down"] += ways == ("cuda", "cpu")
        self.count["up"] += ways == ("cpu", "cuda") and not kwargs.get("non_blocking")


def _composite(func: Any) -> bool:
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return func.namespace == "aten" and has(func.name(), "CompositeImplicitAutograd")


def _unknown_shape(func: Any, args: Any) -> Sequence[int] | None:
    """Return a size for an output whose true one depends on numbers, or None if it does not."""
    if func is aten.nonzero.default:
        return 1, args[0].dim()
    if func is aten.bincount.default:
        return (max([1, *args[2:3]]),)
    if func is aten.index.Tensor:
        masks = [one for one in args[1] if one is not None and one.dtype == torch.bool]
        return (1, *args[0].shape[masks[0].dim() :]) if masks else None
    return None


def _refuse_two_places(func: Any, tensors: Sequence[Tensor]) -> None:
    """Refuse what a card would; scalars in the host's memory may stand beside tensors on it."""
    lists = "foreach" in str(func) or func in {aten.cat.default, aten.stack.default}
    places = {one.device.type for one in tensors if one.dim() or lists}
    if len(places) > 1:
        shapes = [f"{tuple(one.shape)} on {one.device}" for one in tensors]
        raise MisplacedError(f"{func} of {', '.join(shapes)}")


def run_backward(
    outputs: Sequence[Tensor],
    gradients: Sequence[Tensor],
    retain_graph: bool,
    create_graph: bool,
    inputs: Sequence[Tensor],
    *_: Any,
    accumulate_grad: bool = True,
    **__: Any,
) -> tuple[Tensor | None, ...]:
    """Do what autograd's engine does, one node after another."""
    edges = [get_gradient_edge(one) for one in outputs]
    wanted = [get_gradient_edge(one) for one in inputs]
    waiting = _waiting([edge.node for edge in edges])
    sums: dict[Any, list[Tensor | None]] = {
        node: [None] * max(1, len(node._input_metadata)) for node in waiting
    }
    for edge, gradient in zip(edges, gradients, strict=True):
        _add(sums, edge.node, edge.output_nr, gradient)
    ready = [node for node, count in waiting.items() if count == 0]
    with torch.no_grad():
        while ready:
            node = ready.pop()
            if type(node).__name__ == "AccumulateGrad" and not accumulate_grad:
                continue
            found = getattr(node, "apply", node)(*sums[node])
            found = found if isinstance(found, tuple) else (found,)
            for (after, number), gradient in zip(node.next_functions, found, strict=False):
                if after is not None:
                    _add(sums, after, number, gradient)
                    waiting[after] -= 1
                    ready += [after] * (waiting[after] == 0)
    return tuple(sums[edge.node][edge.output_nr] for edge in wanted)


def _waiting(roots: Sequence[Any]) -> Counter[Any]:
    """Return for how many gradients each node that is reached from ``roots`` has to wait."""
    waiting: Counter[Any] = Counter(dict.fromkeys(roots, 0))
    stack = list(roots)
    while stack:
        for after, _ in stack.pop().next_functions:
            if after is not None:
                if after not in waiting:
                    stack.append(after)
                waiting[after] += 1
    return waiting


def _add(sums: Any, node: Any, number: int, gradient: Tensor | None) -> None:
    if gradient is None:
        return
    of = node._input_metadata[number]
    if gradient.device != of.device:
        raise MisplacedError(f"the gradient of a tensor on {of.device} is on {gradient.device}")
    gradient = gradient.sum_to_size(of.shape).to(of.dtype)
    own = sums[node][number]
    sums[node][number] = gradient if own is None else own + gradient


def _apply(self: nn.Module, function: Any, recurse: bool = True) -> nn.Module:
    """Move parameters in place, as `Module._apply` does with those that are real."""
    for module in self.children() if recurse else ():
        module._apply(function)
    for parameter in self._parameters.values():
        if parameter is not None:
            with torch.no_grad():
                moved = function(parameter)
            parameter.data = moved
            parameter.fake_device = moved.device
    for name, buffer in self._buffers.items():
        if buffer is not None:
            self._buffers[name] = function(buffer)
    return self


def fused_sgd(
    weights: list[Tensor], gradients: list[Tensor], momenta: list[Tensor], *, lr: Any, **_: Any
) -> None:
    """Demand what the fused kernel does, which PyTorch has for real tensors only."""
    for group in zip(weights, gradients, momenta or weights, strict=True):
        _refuse_two_places("_fused_sgd_", [*group, lr.view(1)])
        for one in group[1:]:
            sizes = zip(one.shape, one.stride(), group[0].stride(), strict=True)
            assert one.dtype == group[0].dtype
            assert one.shape == group[0].shape
            assert all(size == 1 or left == right for size, left, right in sizes)
    assert lr.dtype == torch.float32


class RealFile:
    """A safetensors file whose tensors are real ones, in the host's memory."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.file = safe_open(*args, **kwargs)

    def __enter__(self) -> "RealFile":
        self.file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.file.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def get_tensor(self, name: str) -> Tensor:
        with _disable_current_modes():
            return self.file.get_tensor(name)


@contextmanager
def card() -> Iterator[Reads]:
    """Pretend that there is a card; what is computed within has no numbers."""
    reads = Reads()
    with ExitStack() as stack:
        stack.enter_context(patch("torch.autograd._engine_run_backward", run_backward))
        stack.enter_context(patch.object(nn.Module, "_apply", _apply))
        stack.enter_context(patch("torch._fused_sgd_", fused_sgd))
        stack.enter_context(patch("pipeline.storage.tensors.safe_open", RealFile))
        stack.enter_context(patch("torch.cuda.default_generators", (torch.Generator(),)))
        stack.enter_context(patch("torch.cuda.current_device", lambda: CARD.index))
        # Autocast asks for the card before it casts.
        absent = "torch.cuda.amp.common.amp_definitely_not_available"
        stack.enter_context(patch(absent, lambda: False))
        stack.enter_context(patch("torch.cuda.is_bf16_supported", lambda: True))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(reads)
        yield reads


def misplaced(model: nn.Module) -> list[str]:
    """Return the names of parameters, buffers and gradients that are not on the card."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    tensors |= {f"{n}.grad": p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert all(isinstance(tensor, FakeTensor) for tensor in tensors.values())
    return [name for name, tensor in tensors.items() if tensor.device != CARD]
