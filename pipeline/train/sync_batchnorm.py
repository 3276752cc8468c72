"""BatchNorm by the statistics of the whole batch, whoever computes which share of it."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.train.distributed import world


def synchronise(model: nn.Module, device: torch.device) -> None:
    """Replace the BatchNorm layers of ``model`` by such that agree among processes.

    They hold the same parameters and statistics under the same names. On GPUs they are PyTorch's
    own (`torch.nn.SyncBatchNorm`), which has none for CPUs.
    """
    nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if device.type == "cpu":
        for module in model.modules():
            if isinstance(module, nn.SyncBatchNorm):
                module.__class__ = CpuSyncBatchNorm


class CpuSyncBatchNorm(nn.SyncBatchNorm):
    """The same on CPUs: sums over all processes, and autograd for the rest."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in torch
        """Return the normalised input [B, C, ...], as BatchNorm would of all shares together.

            y = (x - mean) / sqrt(variance + eps) * weight + bias

        Mean and variance are per channel over the examples and positions of all processes.
        """
        if not self.training or world() == 1:
            return super().forward(input)
        x = input.float()
        rest = [dim for dim in range(x.ndim) if dim != 1]
        own = x.new_full([1], x.numel() // x.shape[1])
        sums = _sum(torch.cat([x.sum(rest), own]))
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
        for running, seen in ((self.running_mean, mean), (self.running_var, variance)):
            assert running is not None
            running.lerp_(seen.to(running.dtype), factor)


class _Sum(torch.autograd.Function):
    """y = sum_r x_r in every process r, and so dL/dx_r = sum_r dL_r/dy, with L = sum_r L_r."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ARG004
        """Sum over all processes."""
        dist.all_reduce(own := own.clone())
        return own

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        """Sum what the losses of all processes say."""
        dist.all_reduce(own := gradients[0].clone())
        return own


def _sum(own: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(own)
    return summed


def _along(channels: Tensor, x: Tensor) -> Tensor:
    """Return ``channels`` [C] in a shape that is broadcast over ``x`` [B, C, ...]."""
    return channels.view(1, -1, *[1] * (x.ndim - 2))
