"""Loss and error of a network on all splits, with its BatchNorm statistics re-estimated."""

import torch

from pipeline.data.base import Dataset, Split
from pipeline.stagekit.model_folder import with_batchnorm_statistics
from pipeline.storage.checkpoint import Checkpoint
from pipeline.tasks.base import load as load_task

Measures = dict[str, dict[str, float]]  # by split: loss, and error = 1 - score


def some(split: Split, count: int) -> Split:
    """Return at most ``count`` examples, drawn with a fixed seed."""
    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(0))
    return split.take(order[:count])


def measure(
    model: Checkpoint, data: Dataset, splits: dict[str, Split], device: torch.device
) -> Measures:
    """Return loss and error (1 - score) on every split, with BatchNorm re-estimated."""
    network, task = with_batchnorm_statistics(model, data, device)[0], load_task(data.task)
    metrics = {
        name: task.measure(task.predict(network, data, split), split, data)
        for name, split in splits.items()
    }
    return {
        name: {"loss": numbers["loss"], "error": 1 - numbers[task.metric]}
        for name, numbers in metrics.items()
    }
