"""A training that pauses between two parts: what the next part needs beside the network's file."""

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
    """Tensors by name: those of the state dict that the network's file holds otherwise, and more.

    Attributes: weights, the dense weights behind DPF's mask and BatchNorm's running statistics as
    training left them; momentum and streams, see `TrainingState`.
    """

    weights: Mapping[str, Tensor] = field(default_factory=dict)
    momentum: Mapping[str, Tensor] = field(default_factory=dict)
    streams: Mapping[str, Tensor] = field(default_factory=dict)

    def resumed(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return ``checkpoint`` as training left it."""
        state = {**checkpoint.state, **self.weights}
        return Checkpoint(state, checkpoint.masks, checkpoint.meta)

    def training(self, epochs: int, *, same_streams: bool) -> TrainingState:
        """Return where the training stands after ``epochs``, with or without its own streams."""
        streams = dict(self.streams) if same_streams else {}
        return TrainingState(epochs, dict(self.momentum), streams)


def read_paused(folder: Path) -> Paused:
    """Read what `save_paused` wrote; nothing where the training of ``folder`` is over."""
    if not (folder / TRAINING).exists():
        return Paused()
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_tensors(folder / TRAINING).items():
        part, _, name = key.partition("/")
        parts.setdefault(part, {})[name] = tensor
    return Paused(**parts)


def save_paused(folder: Path, paused: Paused) -> None:
    """Write ``paused`` beside the network of ``folder``."""
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
