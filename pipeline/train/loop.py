"""The one training loop: pretraining, retraining under masks, and whatever hooks make of it."""

import math
from collections.abc import Iterable, Mapping, Sequence
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
from pipeline.train.distributed import all_reduce_sum, local_shard, rank, world
from pipeline.train.hook import Hook
from pipeline.train.malloc import configure_malloc
from pipeline.train.predict import count_right
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
    configure_malloc()
    device = torch.device(device)
    choose_kernels(device, deterministic=settings.deterministic)
    set_precision(device, settings.precision)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = Batches(data, settings.batch_size, settings.augmentation, seed=seed, device=device)
    val = data.val
    if world() > 1:
        synchronise(model, device)
        val = val.take(torch.arange(len(val.labels))[local_shard(len(val.labels))])
    for hook in hooks:
        hook.on_train_start(model)
    step = Step(model, criterion, settings, masks or {}, learning_rates, device)
    stream = ("dropout", rank()) if rank() else ("dropout",)
    torch.manual_seed(derive(seed, *stream))  # dropout layers draw from the global generator
    state = state or TrainingState()
    state.restore(model, step.optimiser, batches)
    model.train()
    steps = stepper(step, batches, hooks)
    done, history = state.epochs, []
    epochs = done + math.ceil(len(learning_rates) / len(batches))
    for epoch, start in enumerate(range(0, len(learning_rates), len(batches)), start=done + 1):
        rates = learning_rates[start : start + len(batches)]
        model.train()
        step.sums.zero_()
        first = done * len(batches) + start + 1
        _epoch(model, steps, hooks, range(first, first + len(rates)))
        for hook in hooks:
            hook.on_epoch_end(model, epoch)
        right, counted = all_reduce_sum(step.sums[1:]).tolist()
        row = {
            "epoch": epoch,
            "loss": step.sums[0].item() / len(rates),
            "accuracy": right / counted,
            "val_accuracy": _accuracy(model, criterion, val, data),
            "learning_rate": rates[-1],
        }
        _check(row, max(rates))
        if rank() == 0:
            emit(**({"epoch": epoch, "epochs": epochs} | row))
        history.append(row)
    state.update(model, step.optimiser, batches, epochs)
    for hook in hooks:
        hook.on_train_end(model)
    step.optimiser.zero_grad()  # what comes next needs the memory
    model.to(memory_format=torch.contiguous_format)
    return history


def _epoch(
    model: nn.Module, steps: Eager | Replayed, hooks: Sequence[Hook], numbers: Iterable[int]
) -> None:
    """Take the steps ``numbers``, without reading a tensor back."""
    steps.start_epoch()
    for number in numbers:
        steps.backward()
        for hook in hooks:
            hook.on_gradients(model, number)
        steps.update()
        for hook in hooks:
            hook.on_step_end(model, number)


def _accuracy(model: nn.Module, criterion: Criterion, val: "Split", data: "Dataset") -> float:
    """Return the accuracy on the validation split, of which each process has its share."""
    right, counted = all_reduce_sum(count_right(model, criterion, val, data.mean, data.std))
    return float(right / counted)


def _check(row: Mapping[str, float], rate: float) -> None:
    """Raise a UserError if training diverged; ``rate`` is the epoch's largest."""
    if not (math.isfinite(row["loss"]) and math.isfinite(row["val_accuracy"])):
        raise UserError(
            f"training diverged in epoch {row['epoch']} (loss {row['loss']:g}) at learning rate "
            f"{rate:g}: lower the learning rate, or set clip_norm"
        )
