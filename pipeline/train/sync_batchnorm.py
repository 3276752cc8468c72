"""Synchronised BatchNorm: statistics of the whole batch, of which each process has a shard."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.errors import UserError
from pipeline.train.distributed import world_size

CONVERTED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def synchronise(model: nn.Module, device: torch.device) -> None:
    """Replace the BatchNorm layers of ``model`` by synchronised ones.

    Parameters and statistics keep their names. On GPUs these are `torch.nn.SyncBatchNorm`, which
    does not support CPUs.

    Raises:
        UserError: a layer is a BatchNorm of another class, whose further operations would be lost.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and type(module) not in CONVERTED:
            raise UserError(
                f"the network's layer {name} is a {type(module).__name__}, which several "
                "processes cannot share: set SMS_GPUS_PER_STAGE to 1, or use another network"
            )
    nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if device.type == "cpu":
        for module in model.modules():
            if isinstance(module, nn.SyncBatchNorm):
                module.__class__ = CpuSyncBatchNorm


class CpuSyncBatchNorm(nn.SyncBatchNorm):
    """SyncBatchNorm on CPUs: sums over all processes, differentiated by autograd."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in torch
        """Return the input [B, C, ...], normalised as BatchNorm would do with all shards together.

            y = (x - mean) / sqrt(variance + eps) * weight + bias

        Mean and variance are per channel over the examples and positions of all processes.
        """
        if not self.training or world_size() == 1:
            return super().forward(input)
        x = input.float()
        rest = [dim for dim in range(x.ndim) if dim != 1]
        positions = x.new_full([1], x.numel() // x.shape[1])
        sums = _sum(torch.cat([x.sum(rest), positions]))
        count = sums[-1]
        mean = sums[:-1] / count
        x = x - _along(mean, x)
        variance = _sum(x.square().sum(rest)) / count
        if self.running_mean is not None and self.running_var is not None:
            self._track(mean.detach(), variance.detach() * count / (count - 1))
        x = x * _along((variance + self.eps).rsqrt(), x)
        if self.affine:
            x = x * _along(self.weight, x) + _along(self.bias, x)
        return x.to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of this batch."""
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        factor = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, current in ((self.running_mean, mean), (self.running_var, variance)):
            assert running is not None
            running.lerp_(current.to(running.dtype), factor)


class _Sum(torch.autograd.Function):
    """y = sum_r x_r in every process r, and so dL/dx_r = sum_r dL_r/dy, with L = sum_r L_r."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        """Return x summed over all processes."""
        dist.all_reduce(y := x.clone())
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        """Return dL_r/dy summed over all processes."""
        dist.all_reduce(total := gradients[0].clone())
        return total


def _sum(x: Tensor) -> Tensor:
    y: Tensor = _Sum.apply(x)
    return y


def _along(channels: Tensor, x: Tensor) -> Tensor:
    """Return ``channels`` [C] in a shape that broadcasts over ``x`` [B, C, ...]."""
    return channels.view(1, -1, *[1] * (x.ndim - 2))
