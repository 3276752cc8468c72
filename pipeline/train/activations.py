"""Statistics of a network's activations by layer and channel, as they are or corrected."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.channels.classifier import LAYERS, classifier
from pipeline.data.formats.lazy_images import Images
from pipeline.train.batchnorm import reestimate

Moments = dict[str, tuple[Tensor, Tensor]]  # by layer, float32 [C] each


def correctable(model: nn.Module) -> list[str]:
    """Return the layers whose outputs another weight and bias can scale and shift, in model order.

    These are the convolutions and linear layers with a bias, without the classifier. A network with
    BatchNorm has none: its statistics are corrected when they are re-estimated.
    """
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        return []
    last = classifier(model)
    layers = ((n, module) for n, module in model.named_modules() if isinstance(module, LAYERS))
    return [name for name, layer in layers if layer.bias is not None and name != last]


def channel_moments(
    model: nn.Module,
    images: Images,
    mean: Tensor,
    std: Tensor,
    goals: Mapping[str, tuple[Tensor, Tensor]] | None = None,
) -> Moments:
    """Return mean and variance of the outputs of each correctable layer, before the activation.

    They are the running statistics of a BatchNorm behind the layer, over all ``images``
    (`pipeline.train.batchnorm.reestimate`). Layers that a pass does not call are left out.

    Args:
        model: left unchanged.
        images: uint8 [N, C, H, W].
        mean: float32 [C], of images / 255; ``std`` likewise.
        std: see ``mean``.
        goals: mean and standard deviation of each channel, by layer. With them the BatchNorm also
            sets the outputs of these layers to the goals, batch by batch, so that every layer is
            measured on corrected inputs.

    Source: Jordan et al. 2023 (REPAIR), section 3.
    """
    names = correctable(model) if goals is None else list(goals)
    if not names:
        return {}
    fixed = goals or {}
    norms = [_batchnorm(model.get_submodule(name), fixed.get(name)) for name in names]
    hooks = [
        model.get_submodule(name).register_forward_hook(_hook(norm, replace=goals is not None))
        for name, norm in zip(names, norms, strict=True)
    ]
    try:
        reestimate(_Watched(model, norms), images, mean, std)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: (norm.running_mean.cpu(), norm.running_var.cpu())  # type: ignore[union-attr]
        for name, norm in zip(names, norms, strict=True)
        if norm.num_batches_tracked
    }


class _Watched(nn.Module):
    """A network with the BatchNorm layers that its hooks call."""

    def __init__(self, network: nn.Module, norms: list[nn.BatchNorm1d]) -> None:
        super().__init__()
        self.network, self.norms = network, nn.ModuleList(norms)

    def forward(self, inputs: Tensor) -> Any:
        """Return the network's outputs."""
        return self.network(inputs)


def _batchnorm(layer: nn.Module, goal: tuple[Tensor, Tensor] | None) -> nn.BatchNorm1d:
    """Return a BatchNorm of the layer's channels, with mean and deviation ``goal`` if given."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    norm = nn.BatchNorm1d(len(weight), affine=goal is not None)
    if goal is not None:
        norm.load_state_dict({"bias": goal[0], "weight": goal[1]}, strict=False)
    return norm.to(weight.device)


def _hook(norm: nn.BatchNorm1d, *, replace: bool) -> Callable[..., Tensor | None]:
    """Return a forward hook that passes a layer's output through ``norm``."""

    def hook(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:  # noqa: ARG001
        axis = -1 if isinstance(layer, nn.Linear) else 1
        moved = output.movedim(axis, 1)  # [B, C, ...]
        result = norm(moved.flatten(2) if moved.ndim > 2 else moved)
        return result.view(moved.shape).movedim(1, axis) if replace else None

    return hook
