"""The folder of a finished network: BatchNorm re-estimated, predictions made, all saved once."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset
from pipeline.models.build import build
from pipeline.storage.checkpoint import Checkpoint, load, save, save_tensors, write_json
from pipeline.tasks.base import load as load_task
from pipeline.train.batchnorm import reestimate

MODEL = "model.safetensors"
PREDICTIONS = "predictions.safetensors"  # what the task keeps of the outputs, on val and test


def network(checkpoint: Checkpoint) -> nn.Module:
    """Build the network that ``checkpoint`` describes and load its state into it."""
    meta = checkpoint.meta
    model = build(meta["network"], meta["classes"], meta["channels"])
    model.load_state_dict(checkpoint.state)
    return model


def read(folder: Path) -> Checkpoint:
    """Load the checkpoint of a model folder or a prune folder."""
    return load(folder / MODEL)


def with_batchnorm_statistics(
    checkpoint: Checkpoint, data: Dataset, device: torch.device
) -> tuple[nn.Module, Tensor]:
    """Return the network with BatchNorm re-estimated, and its predictions on the validation split.

    One pass over the whole training set, as the paper does for soups and single models alike
    (appendix A.2), so that they are compared on the same footing.
    """
    model = network(checkpoint).to(device)
    reestimate(model, data.train.images, data.mean, data.std)
    return model, load_task(data.task).predict(model, data, data.val)


def write(
    folder: Path, checkpoint: Checkpoint, data: Dataset, device: torch.device, **numbers: Any
) -> dict[str, Any]:
    """Calibrate ``checkpoint``, write its folder, and return its metrics."""
    model, val = with_batchnorm_statistics(checkpoint, data, device)
    task = load_task(data.task)
    predictions = {"val": val, "test": task.predict(model, data, data.test)}
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    save(folder / MODEL, Checkpoint(state, checkpoint.masks, checkpoint.meta))
    save_tensors(folder / PREDICTIONS, predictions)
    metrics = {
        f"{part}_{name}": value
        for part, kept in predictions.items()
        for name, value in task.measure(kept, getattr(data, part), data).items()
    }
    metrics |= {"sparsity": checkpoint.meta["sparsity"], **numbers}
    write_json(folder / "metrics.json", metrics)
    return metrics
