"""Served network: normalisation, network and the task's output as one module."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.channels import shrunk_checkpoint
from pipeline.errors import UserError
from pipeline.models.build import build
from pipeline.stagekit.model_folder import network, read
from pipeline.storage.atomic_files import read_json
from pipeline.tasks.base import Task
from pipeline.tasks.base import load as load_task


class Served(nn.Module):
    """Normalisation, network and the task's output as one module.

    A classifier maps images uint8 [B, C, H, W] to probabilities float32 [B, K], or [B, K, H, W] per
    pixel: p = softmax(model((images / 255 - mean) / std)). A translator maps token ids [B, 2, L],
    the source and the target so far, to the probabilities of each next token [B, K, L].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, task: Task, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.model, self.task = model, task
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return the task's output for ``images`` (or token ids)."""
        if self.mean.numel():  # token ids have no mean
            images = (images.float() / 255 - self.mean) / self.std
        return self.task.served(self.model(images))


def served(model: Path, data: Path) -> Served:
    """Return the model in the folder ``model`` with the normalisation of the folder ``data``.

    A folder of the stage shrink has the network without its pruned filters.
    """
    meta = read_json(data / "meta.json")
    mean, std = torch.tensor(meta["mean"]), torch.tensor(meta["std"])
    small = model / shrunk_checkpoint.SMALL
    loaded = shrunk_checkpoint.load(small, build) if small.exists() else network(read(model))
    return Served(loaded, load_task(meta["task"]), mean, std).eval()


def traced(module: nn.Module, examples: Tensor) -> torch.export.ExportedProgram:
    """Return the graph of ``module`` by torch.export, for any number of examples.

    Args:
        module: in evaluation mode.
        examples: at least two, because torch.export takes a dimension of size 1 for a constant.

    Raises:
        UserError: torch.export cannot trace it.
    """
    try:
        return torch.export.export(module, (examples,), dynamic_shapes=any_batch())
    except Exception as error:
        raise UserError(
            f"torch.export cannot trace this network ({first_line(error)}): choose another "
            "network.name."
        ) from error


def any_batch() -> tuple[dict[int, torch.export.Dim], ...]:
    """Return the dynamic shapes of one input whose first dimension is the batch."""
    return ({0: torch.export.Dim("batch", min=1)},)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its kind if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
