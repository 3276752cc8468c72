"""The one training loop: pretraining, retraining under masks, and whatever hooks make of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from pipeline.errors import UserError
from pipeline.progress import emit
from pipeline.seeds import derive
from pipeline.train.augment import Augmentation
from pipeline.train.batches import Batches, steps_per_epoch
from pipeline.train.criterion import Criterion, CrossEntropy
from pipeline.train.distributed import average, own, rank, total, world
from pipeline.train.memory import keep_freed_memory
from pipeline.train.predict import count_right
from pipeline.train.state import TrainingState
from pipeline.train.whole_batch import synchronise

if TYPE_CHECKING:
    from pipeline.data.base import Dataset, Split

__all__ = ["Hook", "Settings", "steps_per_epoch", "train"]


@dataclass(frozen=True)
class Settings:
    """How to train: SGD (Nesterov iff weight decay > 0) on a criterion's loss.

    Attributes: weight_decay, on all parameters; clip_norm, the largest norm of the gradient;
    precision, "bf16" computes outputs and their gradients in bfloat16 where PyTorch deems it safe,
    and keeps weights, gradients and statistics in float32; compile, whether to spend up to half a
    minute on `torch.compile`, which only long trainings earn back.
    """

    batch_size: int
    weight_decay: float
    momentum: float = 0.9
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False


class Hook(Protocol):
    """What else happens to the model while it trains; a subclass overrides what it needs.

    Steps and epochs are counted from 1 over the whole training.
    """

    def on_train_start(self, model: nn.Module) -> None:
        """Act before the optimiser is made: it trains the parameters that are added here too."""

    def on_gradients(self, model: nn.Module, step: int) -> None:
        """Change the gradients of ``step``, before they are clipped and decay is added."""

    def on_step_end(self, model: nn.Module, step: int) -> None:
        """Act after optimiser step ``step``."""

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:
        """Act after epoch ``epoch``, before it is validated."""

    def on_train_end(self, model: nn.Module) -> None:
        """Leave the model as it shall be kept."""


def train(  # noqa: PLR0913
    model: nn.Module,
    data: "Dataset",
    settings: Settings,
    learning_rates: Sequence[float],
    *,
    seed: int,
    criterion: Criterion = CrossEntropy(),  # noqa: B008  (it has no state)
    masks: Mapping[str, Tensor] | None = None,
    hooks: Sequence[Hook] = (),
    device: torch.device | str = "cpu",
    state: TrainingState | None = None,
) -> list[dict[str, float]]:
    """Train ``model`` in place, one step a learning rate, and return one row an epoch.

    A row has the epoch (from 1), loss (the mean of its steps), accuracy (the share that is right of
    the positions that count, as seen), val_accuracy and learning_rate (of its last step). Weights
    masked False are +0.0 from the start and after every step. Equal seeds give equal bits (on one
    machine, with one number of threads); the order of the data, augmentation and dropout have a
    stream of randomness each. Processes that train together (pipeline/train/distributed.py) take
    every step together.

    Arguments: criterion, the task's, says what the loss is and what is right; masks, bool, True =
    kept, by parameter name; device, where the model is left; state, of a training in parts: taken
    up where the part before left it, and brought up to date in place.
    Raises: UserError when the training diverges.
    """
    keep_freed_memory()
    device = torch.device(device)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = Batches(data, settings.batch_size, settings.augmentation, seed=seed, device=device)
    val = data.val
    if world() > 1:
        synchronise(model, device)
        val = val.take(torch.arange(len(val.labels))[own(len(val.labels))])
    for hook in hooks:
        hook.on_train_start(model)
    optimiser = _optimiser(model, settings)
    take_step = _stepper(model, optimiser, criterion, settings, masks or {}, hooks)
    stream = ("dropout", rank()) if rank() else ("dropout",)
    torch.manual_seed(derive(seed, *stream))  # dropout layers draw from the global generator
    state = state or TrainingState()
    state.restore(model, optimiser, batches)
    done, history = state.epochs, []
    epochs = done + math.ceil(len(learning_rates) / len(batches))
    for epoch, start in enumerate(range(0, len(learning_rates), len(batches)), start=done + 1):
        rates = learning_rates[start : start + len(batches)]
        model.train()
        loss, hits, counted = torch.zeros(3, dtype=torch.float64, device=device)
        for step, (rate, (images, labels)) in enumerate(
            zip(rates, batches.epoch(), strict=False), start=done * len(batches) + start + 1
        ):
            step_loss, scores = take_step(images, labels, rate, step)
            loss += step_loss
            hits += criterion.right(scores, labels)
            counted += criterion.counted(labels)
            for hook in hooks:
                hook.on_step_end(model, step)
        for hook in hooks:
            hook.on_epoch_end(model, epoch)
        hits, counted = total(torch.stack([hits, counted]))
        row = {
            "epoch": epoch,
            "loss": loss.item() / len(rates),
            "accuracy": hits.item() / counted.item(),
            "val_accuracy": _accuracy(model, criterion, val, data),
            "learning_rate": rates[-1],
        }
        if not (math.isfinite(row["loss"]) and math.isfinite(row["val_accuracy"])):
            raise UserError(
                f"training diverged in epoch {epoch} (loss {row['loss']:g}) at learning rate "
                f"{max(rates):g}: lower the learning rate, or set clip_norm"
            )
        if rank() == 0:
            emit(**({"epoch": epoch, "epochs": epochs} | row))
        history.append(row)
    state.update(model, optimiser, batches, epochs)
    for hook in hooks:
        hook.on_train_end(model)
    model.to(memory_format=torch.contiguous_format)
    return history


def _accuracy(model: nn.Module, criterion: Criterion, val: "Split", data: "Dataset") -> float:
    """Return the accuracy on the validation split, of which each process has its share."""
    right, counted = total(count_right(model, criterion, val, data.mean, data.std))
    return float(right / counted)


def _optimiser(model: nn.Module, settings: Settings) -> torch.optim.SGD:
    return torch.optim.SGD(
        model.parameters(),
        lr=0.0,  # each step sets its own
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.weight_decay > 0,
        foreach=True,
    )


def _stepper(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    criterion: Criterion,
    settings: Settings,
    masks: Mapping[str, Tensor],
    hooks: Sequence[Hook],
) -> Callable[[Tensor, Tensor, float, int], tuple[Tensor, Tensor]]:
    """Return the function that takes one step and returns the loss and the scores before it.

    Pruned weights start at zero and only their *gradients* are masked, before clipping. Momentum
    and decay of such a weight are then 0 too, so it stays +0.0, and the kept weights have the
    bits that `torch.nn.utils.prune` gives them; masking the weights after each step would also
    do, but would write -0.0, and would still need the gradients masked to clip them rightly.
    """
    network = torch.compile(model) if settings.compile else model
    device = next(model.parameters()).device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
    alone = world() == 1
    masked = [model.get_parameter(name) for name in masks]
    factors = []
    with torch.no_grad():
        for weight, mask in zip(masked, masks.values(), strict=True):
            weight.masked_fill_(~mask.to(device), 0)
            factors.append(torch.empty_like(weight).copy_(mask))  # in the layout of the weight

    def take_step(images: Tensor, labels: Tensor, rate: float, step: int) -> tuple[Tensor, Tensor]:
        with autocast:
            scores = network(images)
        scores = scores.float()
        loss = criterion.loss(
            scores,
            labels,
            smoothing=settings.label_smoothing,
            reduction="mean" if alone else "sum",
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if not alone:
            found = [p.grad for p in model.parameters() if p.grad is not None]
            average([loss, *found], criterion.counted(labels))
        if masked:
            gradients: list[Tensor] = [weight.grad for weight in masked]  # type: ignore[misc]
            torch._foreach_mul_(gradients, factors)
        for hook in hooks:
            hook.on_gradients(model, step)
        if settings.clip_norm is not None:
            clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
        return loss.detach(), scores.detach()

    return take_step
