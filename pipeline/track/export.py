"""Exports a network with its normalisation and output as one graph, and logs it in MLflow."""

import tempfile
from pathlib import Path

import mlflow
import torch
from mlflow.models import infer_signature
from torch import Tensor, nn

from pipeline.channels import shrunk_checkpoint
from pipeline.data.base import load as load_data
from pipeline.models.build import build
from pipeline.storage.atomic_files import read_json
from pipeline.storage.checkpoint import load
from pipeline.tasks.base import Task
from pipeline.tasks.base import load as load_task

SERVED = Path(__file__).with_name("pyfunc_model.py")


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
    """Return the model in the folder ``model`` with the normalisation of the folder ``data``."""
    meta = read_json(data / "meta.json")
    mean, std = torch.tensor(meta["mean"]), torch.tensor(meta["std"])
    return Served(_network(model), load_task(meta["task"]), mean, std).eval()


def _network(model: Path) -> nn.Module:
    """Return the network in a model's folder, or that without filters in a folder of shrink."""
    if (model / shrunk_checkpoint.SMALL).exists():
        return shrunk_checkpoint.load(model / shrunk_checkpoint.SMALL, build)
    checkpoint = load(model / "model.safetensors")
    meta = checkpoint.meta
    network = build(meta["network"], meta["classes"], meta["channels"])
    network.load_state_dict(checkpoint.state)
    return network


def log_model(run_id: str, name: str, model: Path, data: Path) -> str:
    """Log the soup in the folder ``model`` in a run; return its version of the model ``name``.

    ``model`` is a model's folder, or that of the stage shrink with the network without its pruned
    filters. It is stored as a torch.export graph, which loads without this project and without
    unpickling.
    """
    module = served(model, data)
    examples = load_data(data).test.images[:4]
    with torch.inference_mode():
        outputs = module(examples)
    signature = infer_signature(examples.numpy(), outputs.numpy())
    # Several examples: torch.export treats a dimension of size 1 as a constant.
    program = torch.export.export(
        module, (examples,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run(run_id=run_id):
        graph = Path(folder) / "soup.pt2"
        torch.export.save(program, graph)
        info = mlflow.pyfunc.log_model(
            name="soup",
            python_model=str(SERVED),
            artifacts={"soup": str(graph)},
            signature=signature,
            input_example=examples.numpy(),
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", "numpy"],
            metadata={"classes": read_json(data / "meta.json")["classes"]},
            registered_model_name=name,
        )
    return str(info.registered_model_version)
