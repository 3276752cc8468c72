"""PyTorch: a plain state dict, the sparse checkpoint, and a torch.export program."""

from pathlib import Path

import torch
from torch import Tensor

from pipeline.channels import shrunk_checkpoint
from pipeline.export.formats.base import Runner, Source
from pipeline.export.served import traced
from pipeline.storage.checkpoint import save
from pipeline.storage.tensors import save_tensors

LABEL = "PyTorch"
FILE = "model.pt2"
EXACT = True
STATE = "model.safetensors"
SPARSE = "model_sparse.safetensors"
USAGE = """\
import torch
model = torch.export.load("model.pt2").module()
probabilities = model(torch.from_numpy(images))"""


def write(source: Source, folder: Path) -> None:
    """Write the state dict with zeros, the sparse checkpoint, and the program.

    Without its pruned filters the network is dense: its sparse checkpoint is that of the stage
    shrink, which names the kept filters.

    Raises:
        UserError: torch.export cannot trace the network.
    """
    state = source.served.model.state_dict() if source.kept else source.checkpoint.state
    save_tensors(folder / STATE, state, {"format": "pt"})
    if source.kept:
        file = folder / shrunk_checkpoint.SMALL
        shrunk_checkpoint.save(file, source.served.model, source.kept, source.checkpoint.meta)
    else:
        save(folder / SPARSE, source.checkpoint)
    torch.export.save(traced(source.served, source.examples), folder / FILE)


def load(folder: Path, threads: int) -> Runner:
    """Return the program; PyTorch's threads are those of the process, whatever ``threads``."""
    del threads
    program = torch.export.load(folder / FILE).module()

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            probabilities: Tensor = program(images)
        return probabilities

    return run
