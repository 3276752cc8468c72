"""Masks held on the parameters of a network, in any training loop and under any optimiser.

    gradient hook       g <- g * mask                whenever autograd gives a weight its gradient
    after each step     w <- 0 where mask is 0       of every optimiser that has the weight

The gradients are those of the project's own loop (pipeline/train/step.py), so clipping and
momentum of SGD see no pruned weight, and with them alone a pruned weight stays +0.0 under every
optimiser whose update of a weight depends on that weight only. The second line changes nothing
then. It holds the others: an optimiser with momentum from before the pruning, and those that mix
the entries of a matrix, as Muon does.

DistributedDataParallel reduces gradients after the hook, and a mean of zeros is zero.
"""

import weakref
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.hooks import unserializable_hook

from pipeline.errors import UserError

DTENSOR = "torch.distributed.tensor"
HELD: "weakref.WeakSet[Hold]" = weakref.WeakSet()  # those that act after each optimiser step


def refuse_sharded(model: nn.Module) -> None:
    """Refuse a network whose parameters FSDP has flattened, or that are sharded tensors.

    Raises:
        UserError: it is, or contains, such a network.
    """
    kinds = {type(parameter) for parameter in model.parameters()}
    kinds |= {kind for module in model.modules() for kind in type(module).mro()}
    if any(kind.__module__.startswith(("torch.distributed.fsdp", DTENSOR)) for kind in kinds):
        raise UserError(
            "the parameters of the network are sharded, as by FSDP, and masks need them whole: "
            "train in one process or with DistributedDataParallel."
        )


class Hold:
    """Hooks that keep the pruned weights of one network at +0.0 until `remove`.

    The network is not kept alive, and its copies are not held.

    Args:
        model: the network, whose pruned weights are 0.
        masks: bool, True where a weight is kept, by parameter name.

    Attributes: weights and masks, by parameter name; masks are on the device of their weight.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        self.model = weakref.ref(model)
        self.weights = {name: model.get_parameter(name) for name in masks}
        self.masks = dict(masks)
        self.checked: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self.handles = [_register(self, name) for name in masks]
        _hook_optimisers()
        HELD.add(self)  # the hooks of the weights keep this object alive

    def mask(self, name: str) -> Tensor:
        """Return the mask of the weight ``name`` on its device, to which it follows the weight."""
        if self.masks[name].device != self.weights[name].device:
            self.masks[name] = self.masks[name].to(self.weights[name].device)
        return self.masks[name]

    def after_step(self, optimizer: Optimizer) -> None:
        """Set the pruned weights of ``optimizer`` to +0.0.

        Raises:
            UserError: the network has other parameters than those that are held.
        """
        trained = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        if optimizer not in self.checked:
            self.check_parameters(trained)
            self.checked.add(optimizer)
        with torch.no_grad():
            for name, weight in self.weights.items():
                if id(weight) in trained:
                    weight.masked_fill_(~self.mask(name), 0)

    def check_parameters(self, trained: set[int]) -> None:
        """Refuse an optimiser of the network if one of its parameters is no longer the held one."""
        model = self.model()
        now = dict(model.named_parameters(remove_duplicate=False)) if model is not None else {}
        if any(id(parameter) in trained for parameter in now.values()):
            for name, weight in self.weights.items():
                if now.get(name) is not weight:
                    raise UserError(
                        f"the parameter {name!r} was replaced after hold, as FSDP does, and is not "
                        "masked: hold the network again, or train it without FSDP."
                    )

    def remove(self) -> None:
        """Remove the hooks; the weights stay as they are."""
        HELD.discard(self)
        for handle in self.handles:
            handle.remove()


def _register(held: Hold, name: str) -> Any:
    """Register the gradient hook of a weight, which may be frozen for now; return its handle."""
    weight = held.weights[name]

    @unserializable_hook  # type: ignore[untyped-decorator]
    def masked(gradient: Tensor) -> Tensor:
        return torch.where(held.mask(name), gradient, 0.0)

    trained = weight.requires_grad
    weight.requires_grad_(True)
    handle = weight.register_hook(masked)  # type: ignore[no-untyped-call]
    weight.requires_grad_(trained)
    return handle


@cache
def _hook_optimisers() -> None:
    """Have every optimiser call `_after_step`, once and for ever.

    A hook of each object, removed as the object is collected, could be removed while PyTorch
    iterates over the hooks of a step.
    """
    register_optimizer_step_post_hook(_after_step)


def _after_step(
    optimizer: Optimizer,
    args: Any,  # noqa: ARG001
    kwargs: Any,  # noqa: ARG001
) -> None:
    for hold in list(HELD):
        hold.after_step(optimizer)
