"""Format: one way to write a served network, a file of this folder.

LABEL = "ONNX Runtime"      what runs the file, in the model card
FILE = "model.onnx"         the file that is loaded
EXACT = True                whether outputs equal PyTorch's to 1e-4, which is checked; the score
                            on the test split of a format that is not exact is measured
USAGE = "..."               Python that predicts; ``images`` is uint8 [N, C, H, W]

write(source, folder)       writes the files
load(folder, threads)       returns what the files compute, uint8 images -> probabilities
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from pipeline.channels.operations import CONVOLUTIONS
from pipeline.channels.shrink import kept_filters, shrink
from pipeline.data.base import Dataset
from pipeline.evaluate.speedup import output_difference
from pipeline.export.selection import module_names
from pipeline.export.served import Served
from pipeline.stagekit.model_folder import network
from pipeline.storage.checkpoint import Checkpoint
from pipeline.tasks.base import load as load_task
from pipeline.train.predict import logits

EXAMPLES = 16  # validation images, for tracing and comparisons
CALIBRATION = 256  # training images
TOLERANCE = 1e-4

Runner = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Source:
    """A network to export.

    Args:
        served: normalisation, network and output, in evaluation mode on the CPU.
        checkpoint: state, masks and metadata of the network with all its filters.
        kept: by convolution, bool [filters], where filters were pruned and ``served`` is the
            network without them; else empty.
        examples: of the validation split, as stored.
        calibration: of the training split, as stored.
    """

    served: Served
    checkpoint: Checkpoint
    kept: Mapping[str, Tensor]
    examples: Tensor
    calibration: Tensor


class Format(Protocol):
    """The interface of a file of this folder."""

    LABEL: str
    FILE: str
    EXACT: bool
    USAGE: str

    def write(self, source: Source, folder: Path) -> None:
        """Write the files of the format into ``folder``."""

    def load(self, folder: Path, threads: int) -> Runner:
        """Return the function that the files in ``folder`` compute, on so many ``threads``."""


def load_format(name: str) -> Format:
    """Return the format ``name``, a file of this folder."""
    (module,) = module_names([name])
    return cast("Format", import_module(module))


def source_of(checkpoint: Checkpoint, data: Dataset) -> Source:
    """Return ``checkpoint`` as a source; whole pruned filters are removed physically.

    Raises:
        UserError: the outputs change with the removal.
    """
    model, kept = network(checkpoint).eval(), {}
    examples = data.val.images[:EXAMPLES].contiguous()  # decoded images have channels last
    if _whole_filters(model, checkpoint.masks):
        kept = kept_filters(model, checkpoint.masks)
        small = shrink(model, kept)
        output_difference(*(logits(m, examples, data.mean, data.std) for m in (model, small)))
        model = small
    return Source(
        Served(model, load_task(data.task), data.mean, data.std).eval(),
        checkpoint,
        kept,
        examples,
        _calibration(data),
    )


def _whole_filters(model: nn.Module, masks: Mapping[str, Tensor]) -> bool:
    """Return whether the masks of all convolutions prune whole filters, and at least one."""
    layers = [name for name, layer in model.named_modules() if isinstance(layer, CONVOLUTIONS)]
    pruned = [masks[f"{name}.weight"].flatten(1) for name in layers if f"{name}.weight" in masks]
    return bool(pruned) and all(bool((mask.any(1) == mask.all(1)).all()) for mask in pruned)


def _calibration(data: Dataset) -> Tensor:
    """Return at most `CALIBRATION` training examples, drawn with a fixed seed."""
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    return data.train.images[order[:CALIBRATION].sort().values].contiguous()
