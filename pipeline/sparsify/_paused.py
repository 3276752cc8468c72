"""Paused training: the tensors that the next part of a training needs beside the network's file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

from pipeline.averaging import mean
from pipeline.storage.checkpoint import Checkpoint, load_tensors, save_tensors
from pipeline.train.state import TrainingState

TRAINING = "training.safetensors"  # in a model folder


@dataclass(frozen=True)
class Paused:
    """Tensors by name that the network's file does not hold as training left them.

    Attributes: weights, the dense weights behind DPF's mask and BatchNorm's running statistics;
    momentum and streams, as in `TrainingState`.
    """

    weights: Mapping[str, Tensor] = field(default_factory=dict)
    momentum: Mapping[str, Tensor] = field(default_factory=dict)
    streams: Mapping[str, Tensor] = field(default_factory=dict)

    def resumed(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return ``checkpoint`` with the weights and statistics as training left them."""
        state = {**checkpoint.state, **self.weights}
        return Checkpoint(state, checkpoint.masks, checkpoint.meta)

    def training(self, epochs: int, *, same_streams: bool) -> TrainingState:
        """Return the training's state after ``epochs``, with or without its random streams."""
        streams = dict(self.streams) if same_streams else {}
        return TrainingState(epochs, dict(self.momentum), streams)


def read_paused(folder: Path) -> Paused:
    """Return what `save_paused` wrote; no tensors where the training of ``folder`` has ended."""
    if not (folder / TRAINING).exists():
        return Paused()
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_tensors(folder / TRAINING).items():
        part, _, name = key.partition("/")
        parts.setdefault(part, {})[name] = tensor
    return Paused(**parts)


def save_paused(folder: Path, paused: Paused) -> None:
    """Write ``paused`` into the model folder ``folder``."""
    tensors = {
        f"{part}/{name}": tensor
        for part, named in asdict(paused).items()
        for name, tensor in named.items()
    }
    save_tensors(folder / TRAINING, tensors)


def average_paused(copies: Sequence[Paused]) -> Paused:
    """Return the mean of the copies' weights and of their momentum, and copy 0's streams."""
    return Paused(
        mean([copy.weights for copy in copies]),
        mean([copy.momentum for copy in copies]),
        copies[0].streams,
    )
