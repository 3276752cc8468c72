"""A network with random weights that fits the data and their task, and its metadata."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.channels.products import ones_as_input
from pipeline.data.base import Dataset
from pipeline.errors import UserError
from pipeline.models.build import build
from pipeline.prune.prunable import check_network
from pipeline.seeds import derive
from pipeline.tasks.base import Task
from pipeline.tasks.base import load as load_task
from pipeline.train.modes import evaluating


def new_network(name: str, data: Dataset, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network ``name`` with weights drawn by ``seed``, and the meta of its checkpoint.

    Raises:
        UserError: there is no such network, or it does not fit the data (`check_network`) or the
            task (`check_scores`).
    """
    classes, channels = len(data.classes), data.train.images.shape[1]
    torch.manual_seed(derive(seed, "weights"))
    model = build(name, classes, channels)
    with torch.random.fork_rng(devices=()):  # a network may draw numbers
        check_network(model, data.train.images[:1].cpu())
        check_scores(load_task(data.task), data.task, model, data)
    return model, {"network": name, "classes": classes, "channels": channels}


def check_scores(task: Task, name: str, model: nn.Module, data: Dataset) -> None:
    """Refuse a network whose scores of one example are not what the task needs.

    Arguments: name, the task's; model, on the CPU, left unchanged.

    Raises:
        UserError: the network returns no tensor of floats, or one of another shape.
    """
    example, labels = data.train.images[:1].cpu(), data.train.labels[:1]
    with evaluating(model), torch.no_grad():
        scores = model(ones_as_input(example))
    shape = task.scores_shape(labels, len(data.classes))
    found, needed = type(scores).__name__, "a tensor of floats"
    if isinstance(scores, Tensor) and scores.is_floating_point():
        if shape is None or _fits(scores, shape):
            return
        found = f"scores of the shape {list(scores.shape)}"
    if shape is not None:
        needed += f" of the shape [{', '.join('*' if n is None else str(n) for n in shape)}]"
    raise UserError(
        f"network.name: the network returns {found} for one example, but the task {name} needs "
        f"{needed}: change its last layer, or name another network"
    )


def _fits(scores: Tensor, shape: Sequence[int | None]) -> bool:
    return scores.ndim == len(shape) and all(
        size is None or size == there for size, there in zip(shape, scores.shape, strict=True)
    )
