"""The folder of a finished network: BatchNorm re-estimated, logits computed, all saved once."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.checkpoint import Checkpoint, load, save, save_tensors, write_json
from pipeline.data.base import Dataset, Split
from pipeline.models.build import build
from pipeline.train.batchnorm import reestimate
from pipeline.train.predict import logits

MODEL = "model.safetensors"


def network(checkpoint: Checkpoint) -> nn.Module:
    """Build the network that ``checkpoint`` describes and load its state into it."""
    meta = checkpoint.meta
    model = build(meta["network"], meta["classes"], meta["channels"])
    model.load_state_dict(checkpoint.state)
    return model


def read(folder: Path) -> Checkpoint:
    """Load the checkpoint of a model folder or a prune folder."""
    return load(folder / MODEL)


def calibrated(
    checkpoint: Checkpoint, data: Dataset, device: torch.device
) -> tuple[nn.Module, Tensor]:
    """Return the network with BatchNorm re-estimated, and its logits on the validation split.

    One pass over the whole training set, as the paper does for soups and single models alike
    (appendix A.2), so that they are compared on the same footing.
    """
    model = network(checkpoint).to(device)
    reestimate(model, data.train.images.to(device), data.mean, data.std)
    return model, predict(model, data, data.val)


def predict(model: nn.Module, data: Dataset, split: Split) -> Tensor:
    """Return the logits [N, K] of ``model`` on ``split``."""
    return logits(model, split.images, data.mean, data.std).cpu()


def accuracy(scores: Tensor, split: Split) -> float:
    """Return the share of examples whose largest logit is their label's."""
    return int((scores.argmax(1) == split.labels).sum()) / len(split.labels)


def write(
    folder: Path, checkpoint: Checkpoint, data: Dataset, device: torch.device, **numbers: Any
) -> dict[str, Any]:
    """Calibrate ``checkpoint``, write its folder, and return its metrics."""
    model, val = calibrated(checkpoint, data, device)
    test = predict(model, data, data.test)
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    save(folder / MODEL, Checkpoint(state, checkpoint.masks, checkpoint.meta))
    save_tensors(folder / "logits.safetensors", {"val": val, "test": test})
    metrics = {
        "val_accuracy": accuracy(val, data.val),
        "val_loss": float(cross_entropy(val, data.val.labels)),
        "test_accuracy": accuracy(test, data.test),
        "test_loss": float(cross_entropy(test, data.test.labels)),
        "sparsity": checkpoint.meta["sparsity"],
        **numbers,
    }
    write_json(folder / "metrics.json", metrics)
    return metrics
