"""Training loop of every stage: pretraining, retraining under masks, pruning during training.

    g <- gradient of the mean loss of a batch, times the mask, clipped      (pipeline/train/step.py)
    w <- SGD(w, g, eta_t)                     with one learning rate eta_t for each step t

A pruned weight is +0.0 after every step. Hooks (pipeline/train/hook.py) add the rest: averages of
the weights, and the methods that prune during training. Another kind of step takes the gradient
elsewhere (pipeline/train/sam.py).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.events import emit
from pipeline.seeds import derive
from pipeline.train.batches import Batches, steps_per_epoch
from pipeline.train.criterion import Criterion, CrossEntropy
from pipeline.train.cuda_graph import Eager, Replayed, stepper
from pipeline.train.device import choose_kernels, set_precision
from pipeline.train.distributed import all_reduce_sum, local_shard, rank, world_size
from pipeline.train.hook import Hook
from pipeline.train.malloc import configure_malloc
from pipeline.train.predict import count_correct
from pipeline.train.settings import Settings
from pipeline.train.state import TrainingState
from pipeline.train.step import Step
from pipeline.train.sync_batchnorm import synchronise

if TYPE_CHECKING:
    from pipeline.data.base import Dataset, Split

__all__ = ["Hook", "Settings", "steps_per_epoch", "train"]


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
    step_type: Callable[..., Step] | None = None,
    device: torch.device | str = "cpu",
    state: TrainingState | None = None,
) -> list[dict[str, float]]:
    """Train ``model`` in place, one step a learning rate, and return one row an epoch (`_row`).

    Equal seeds give equal bits (on one machine, with one number of threads); data order,
    augmentation and dropout each have a random stream.
    Arguments: masks, bool, True = kept, by parameter name; step_type, of the arguments of `Step`,
    which it is by default; device, where the model is left; state, of a training in parts:
    continued from, and brought up to date in place.
    Raises: UserError when the training diverges.
    """
    device, state = torch.device(device), state or TrainingState()
    _prepare(model, settings, device)
    batches = Batches(data, settings.batch_size, settings.augmentation, seed=seed, device=device)
    for hook in hooks:
        hook.on_train_start(model)
    make_step = step_type or Step
    step = make_step(model, criterion, settings, masks or {}, learning_rates, device)
    torch.manual_seed(derive(seed, "dropout", *([rank()] if rank() else [])))
    state.restore(model, step.optimiser, batches)
    history = _epochs(step, batches, hooks, learning_rates, data, state.epochs)
    state.update(model, step.optimiser, batches, state.epochs + len(history))
    for hook in hooks:
        hook.on_train_end(model)
    step.optimiser.zero_grad()  # frees the gradients' memory for the passes that follow
    model.to(memory_format=torch.contiguous_format)
    return history


def _prepare(model: nn.Module, settings: Settings, device: torch.device) -> None:
    """Set the process up for ``settings``, and put ``model`` on ``device`` in training mode."""
    configure_malloc()
    choose_kernels(device, deterministic=settings.deterministic)
    set_precision(device, settings.precision)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    if world_size() > 1:
        synchronise(model, device)


def _epochs(
    step: Step,
    batches: Batches,
    hooks: Sequence[Hook],
    learning_rates: Sequence[float],
    data: "Dataset",
    done: int,
) -> list[dict[str, float]]:
    """Take a step a learning rate, epoch by epoch after the ``done`` ones; return their rows."""
    for hook in hooks:
        hook.on_optimiser(step.optimiser)
    length, val = len(batches), _local_part(data.val)
    steps = stepper(step, batches, hooks)
    starts = range(0, len(learning_rates), length)
    history = []
    for epoch, start in enumerate(starts, start=done + 1):
        rates = learning_rates[start : start + length]
        first = (epoch - 1) * length + 1
        _steps(step, steps, hooks, range(first, first + len(rates)))
        for hook in hooks:
            hook.on_epoch_end(step.model, epoch)
        row = _row(epoch, step, rates, val, data)
        if rank() == 0:
            emit(**({"epoch": epoch, "epochs": done + len(starts)} | row))
        history.append(row)
    return history


def _steps(step: Step, steps: Eager | Replayed, hooks: Sequence[Hook], numbers: range) -> None:
    """Take the steps ``numbers`` of one epoch, without reading a tensor back."""
    step.model.train()
    step.sums.zero_()
    steps.start_epoch()
    for number in numbers:
        steps.backward()
        for hook in hooks:
            hook.on_gradients(step.model, number)
        steps.update()
        for hook in hooks:
            hook.on_step_end(step.model, number)


def _row(
    epoch: int, step: Step, rates: Sequence[float], val: "Split", data: "Dataset"
) -> dict[str, float]:
    """Return the epoch (from 1), the mean loss of its steps, and the learning rate of its last.

    ``accuracy`` is the share of counted positions that were predicted correctly while training,
    ``val_accuracy`` that on the validation split, of which each process measures ``val``.
    Raises: UserError when the training has diverged.
    """
    correct, counted = all_reduce_sum(step.sums[1:]).tolist()
    on_val = all_reduce_sum(count_correct(step.model, step.criterion, val, data.mean, data.std))
    row = {
        "epoch": epoch,
        "loss": step.sums[0].item() / len(rates),
        "accuracy": correct / counted,
        "val_accuracy": float(on_val[0] / on_val[1]),
        "learning_rate": rates[-1],
    }
    if not (math.isfinite(row["loss"]) and math.isfinite(row["val_accuracy"])):
        raise UserError(
            f"training diverged in epoch {epoch} (loss {row['loss']:g}) at learning rate "
            f"{max(rates):g}: lower the learning rate, or set clip_norm"
        )
    return row


def _local_part(split: "Split") -> "Split":
    """Return this process's part of ``split``: all of it, unless several train together."""
    if world_size() == 1:
        return split
    return split.take(torch.arange(len(split))[local_shard(len(split))])
