"""Running statistics of BatchNorm as averages over the examples of any batches, in one pass."""

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.errors import UserError
from pipeline.train.modes import evaluating

Batch = TypeVar("Batch")


def average_over(
    model: nn.Module,
    batches: Iterable[Batch],
    size: Callable[[Batch], int],
    forward: Callable[[Batch], object],
) -> None:
    """Replace all running statistics by averages over ``batches``.

    With batches b of n_b examples, whose inputs to the layer have mean m_b and unbiased variance
    v_b per channel:  running mean = sum(n_b m_b) / N,  running variance = sum(n_b v_b) / N.
    Each *example* has the same weight, unlike in `torch.optim.swa_utils.update_bn`. Every call of a
    layer counts where a pass calls it more than once. Dropout is off.

    Modes and momenta are restored, and on an exception the statistics too; without running
    statistics nothing is done.
    Arguments: size, n_b of a batch; forward, which runs ``model`` on a batch.
    Raises: UserError without a batch, and for averages that are not finite.
    Source: paper, Section 3 and Appendix A.2; Izmailov et al. 2018 (SWA).
    """
    norms = {
        module: module.momentum
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }
    if not norms:
        return
    before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    examples, seen = 0, dict.fromkeys(norms, 0)  # of the batch, and of all calls of a layer

    def before_call(norm: nn.Module, _: object) -> None:
        assert isinstance(norm, _BatchNorm)
        seen[norm] += examples
        norm.momentum = examples / seen[norm]  # makes the running value the average

    hooks = [norm.register_forward_pre_hook(before_call) for norm in norms]
    with evaluating(model), torch.no_grad():
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.training = True
            for batch in batches:
                examples = size(batch)
                forward(batch)
            if not examples:
                raise UserError(
                    "BatchNorm cannot be re-estimated without a batch: pass at least 1."
                )
            _check_finite(model, norms)
        except BaseException:
            for buffer, value in before:
                buffer.copy_(value)
            raise
        finally:
            for hook in hooks:
                hook.remove()
            for norm, momentum in norms.items():
                norm.training = False
                norm.momentum = momentum


def _check_finite(model: nn.Module, norms: Collection[nn.Module]) -> None:
    """Refuse running statistics of ``norms``, layers of ``model``, that hold NaN or infinity.

    The host waits for a device once.
    """
    names = {module: name for name, module in model.named_modules()}
    finite = [(names[norm], buffer.isfinite().all()) for norm in norms for buffer in norm.buffers()]
    device = finite[0][1].device
    if torch.stack([each.to(device) for _, each in finite]).all():
        return
    layer = next(name for name, each in finite if not each)
    raise UserError(
        f"the inputs of the BatchNorm {layer!r} hold NaN or infinity, so that its running "
        "statistics would too: pass finite batches to a network whose training has not diverged."
    )
