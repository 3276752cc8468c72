"""Model folder: a network with BatchNorm re-estimated, its predictions and its metrics."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset
from pipeline.errors import UserError
from pipeline.models.build import build
from pipeline.storage.checkpoint import Checkpoint, load, save, save_tensors, write_json
from pipeline.storage.tensors import BROKEN
from pipeline.tasks.base import check_measures
from pipeline.tasks.base import load as load_task
from pipeline.train.batchnorm import reestimate
from pipeline.train.device import set_precision
from pipeline.train.settings import Augmentation, Settings

MODEL = "model.safetensors"
PREDICTIONS = "predictions.safetensors"  # what the task keeps of the outputs, on val and test


def network(checkpoint: Checkpoint) -> nn.Module:
    """Build the network that ``checkpoint`` describes and load its state into it.

    Raises:
        UserError: there is no such network, or the state is of another.
    """
    meta = checkpoint.meta
    try:
        model = build(meta["network"], meta["classes"], meta["channels"])
        model.load_state_dict(checkpoint.state)
    except UserError as error:
        raise UserError(f"{checkpoint.path}: {error}" if checkpoint.path else str(error)) from error
    except BROKEN as error:
        raise UserError(
            f"{checkpoint.path or 'the checkpoint'} does not fit the network that it names "
            f"({' '.join(str(error).split())[:300]}): make it again with this code"
        ) from error
    return model


def network_on(device: torch.device, checkpoint: Checkpoint) -> nn.Module:
    """Build the network on ``device``, which computes at the precision of the network's training.

    So candidates and their soup are measured alike, in whichever stage (a bf16 network in float32,
    as `set_precision` says).
    """
    set_precision(device, checkpoint.meta.get("precision", "fp32"))
    return network(checkpoint).to(device)


def trained_meta(meta: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return ``meta`` with what measuring a network needs of its training.

    These are the precision and the augmentation of the images that re-estimate BatchNorm, so that
    candidates and their soup are measured alike. Defaults are not recorded.
    """
    new = {key: value for key, value in meta.items() if key not in {"precision", "augmentation"}}
    if settings.precision != "fp32":
        new["precision"] = settings.precision
    if settings.augmentation != Augmentation() and not settings.plain_batchnorm:
        new["augmentation"] = asdict(settings.augmentation)
    return new


def trained_augmentation(checkpoint: Checkpoint) -> Augmentation:
    """Return the augmentation of the images that give BatchNorm's statistics (`trained_meta`)."""
    return Augmentation(**checkpoint.meta.get("augmentation", {}))


def read(folder: Path) -> Checkpoint:
    """Load the checkpoint of a model folder or a prune folder."""
    return load(folder / MODEL)


def with_batchnorm_statistics(
    checkpoint: Checkpoint, data: Dataset, device: torch.device
) -> tuple[nn.Module, Tensor]:
    """Return the network with BatchNorm re-estimated, and its predictions on the validation split.

    One pass over the whole training set, augmented as the network's training was, for soups and
    single models alike, as in the paper (appendix A.2), so that they are comparable.
    """
    model = network_on(device, checkpoint)
    augmentation = trained_augmentation(checkpoint)
    reestimate(model, data.train.images, data.mean, data.std, augmentation=augmentation)
    return model, load_task(data.task).predict(model, data, data.val)


def write(
    folder: Path, checkpoint: Checkpoint, data: Dataset, device: torch.device, **numbers: Any
) -> dict[str, Any]:
    """Re-estimate BatchNorm, write the folder, and return its metrics, ``numbers`` among them."""
    model, val = with_batchnorm_statistics(checkpoint, data, device)
    task = load_task(data.task)
    predictions = {"val": val, "test": task.predict(model, data, data.test)}
    for kept in predictions.values():
        if not isinstance(kept, Tensor):
            raise UserError(
                f"task is {data.task!r}, whose predict returns {type(kept).__name__}: it must "
                "return a tensor"
            )
    measures = {
        part: task.measure(kept, getattr(data, part), data) for part, kept in predictions.items()
    }
    for measured in measures.values():
        check_measures(task, data.task, measured)
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    save(folder / MODEL, Checkpoint(state, checkpoint.masks, checkpoint.meta))
    save_tensors(folder / PREDICTIONS, predictions)
    metrics = {
        f"{part}_{name}": value
        for part, measured in measures.items()
        for name, value in measured.items()
    }
    metrics |= {"sparsity": checkpoint.meta["sparsity"], **numbers}
    write_json(folder / "metrics.json", metrics)
    return metrics
