"""A network with random weights that fits the data and their task, and its metadata."""

from typing import Any

import torch
from torch import nn

from pipeline.data.base import Dataset
from pipeline.models.build import build
from pipeline.prune.prunable import check_network
from pipeline.seeds import derive
from pipeline.tasks.base import check_scores
from pipeline.tasks.base import load as load_task


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
