"""One optimiser step in two parts: masked gradients of a batch, and the update of the weights."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from pipeline.train.criterion import Criterion
from pipeline.train.distributed import all_reduce_mean, world_size
from pipeline.train.settings import Settings


class Step:
    """A step of SGD under masks; all that changes from step to step is a tensor on the device.

    Hooks act between `backward` and `update`. On a GPU neither part reads a tensor back or copies
    one from the CPU, so each can be captured as a CUDA graph (pipeline/train/cuda_graph.py).

    Pruned weights start at zero and only their *gradients* are masked, before clipping. Momentum
    and decay of such a weight are then 0 too, so it stays +0.0, and the kept weights have the
    bits that `torch.nn.utils.prune` gives them. Masking the weights after each step instead would
    write -0.0, and the gradients would still have to be masked before clipping.

    Attributes: taken, int64 [1], the number of steps taken; sums, float64 [3], over the steps since
    it was last zeroed: losses, correct predictions, counted positions.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        settings: Settings,
        masks: Mapping[str, Tensor],
        learning_rates: Sequence[float],
        device: torch.device,
    ) -> None:
        self.model, self.criterion, self.settings = model, criterion, settings
        self.network = torch.compile(model) if settings.compile else model
        self.on_gpu = device.type == "cuda"
        self.taken = torch.zeros(1, dtype=torch.int64, device=device)
        self.rates = torch.tensor(learning_rates, dtype=torch.float64, device=device)
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.optimiser = _optimiser(model, settings, on_gpu=self.on_gpu)
        self.rate = torch.zeros((), device=device)  # this step's, read by the fused kernel
        if self.on_gpu:
            self.optimiser.param_groups[0]["lr"] = self.rate
        # A weight is cast once a step anyway, and a captured step must not reuse an older cast.
        self.autocast = torch.autocast(
            device.type,
            torch.bfloat16,
            enabled=settings.precision == "bf16",
            cache_enabled=not self.on_gpu,
        )
        self.masked = [model.get_parameter(name) for name in masks]
        self.factors = []
        with torch.no_grad():
            for weight, mask in zip(self.masked, masks.values(), strict=True):
                weight.masked_fill_(~mask.to(device), 0)
                factor = torch.empty_like(weight).copy_(mask)  # in the layout of the weight
                self.factors.append(factor)

    def backward(self, images: Tensor, labels: Tensor) -> None:
        """Set the gradients of the mean loss, masked, and add to ``sums``."""
        single = world_size() == 1
        with self.autocast:
            self.criterion.observe(images)
            scores = self.network(images)
        scores = scores.float()
        loss = self.criterion.loss(
            scores,
            labels,
            smoothing=self.settings.label_smoothing,
            reduction="mean" if single else "sum",
        )
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        counted = self.criterion.counted(labels)
        if not single:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            all_reduce_mean([loss, *gradients], counted)
        masked = [
            (weight.grad, factor)
            for weight, factor in zip(self.masked, self.factors, strict=True)
            if weight.grad is not None  # as of a layer that the network never uses
        ]
        if masked:
            torch._foreach_mul_([grad for grad, _ in masked], [factor for _, factor in masked])
        correct = self.criterion.correct(scores.detach(), labels)
        self.sums += torch.stack([loss.detach().double(), correct.double(), counted.double()])

    def update(self) -> None:
        """Clip the gradients and take the step at its learning rate."""
        if self.settings.clip_norm is not None:
            clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        rate = self.rates.index_select(0, self.taken)
        if self.on_gpu:
            self.rate.copy_(rate[0])
        else:
            self.optimiser.param_groups[0]["lr"] = rate.item()
        self.optimiser.step()
        self.taken += 1

    def state(self) -> list[Tensor]:
        """Return every tensor that `backward` and `update` change and a later step reads."""
        momenta = [tensor for state in self.optimiser.state.values() for tensor in state.values()]
        model = [*self.model.parameters(), *self.model.buffers()]
        return [*model, *momenta, self.taken, self.sums, self.rate]


def _optimiser(model: nn.Module, settings: Settings, *, on_gpu: bool) -> torch.optim.SGD:
    """Return SGD; on a GPU the fused implementation, whose learning rate may be a tensor.

    Without momentum buffers the first step would run another kernel than the captured one. Buffers
    of 0 give the same update.
    """
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=0.0,  # each step sets its own
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.weight_decay > 0,
        foreach=not on_gpu,
        fused=on_gpu,
    )
    if on_gpu and settings.momentum:
        for parameter in model.parameters():
            momentum = torch.zeros_like(parameter, requires_grad=False)
            optimiser.state[parameter]["momentum_buffer"] = momentum
    return optimiser
