"""State of a paused training: momentum and random generators, to continue with the same bits."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pipeline.train.batches import Batches
from pipeline.train.distributed import rank


@dataclass
class TrainingState:
    """The optimiser's and the random generators' state after a number of epochs.

    A training in parts gives the bits of one in one piece if each part continues from the weights,
    BatchNorm's statistics and this state of the part before.

    Attributes: epochs, done so far; momentum, v of v <- mu v + g, by parameter; streams, uint8, the
    states of the generators that draw order, augmentation, crops and dropout. Empty: a fresh start.
    """

    epochs: int = 0
    momentum: dict[str, Tensor] = field(default_factory=dict)
    streams: dict[str, Tensor] = field(default_factory=dict)

    def restore(self, model: nn.Module, optimiser: torch.optim.Optimizer, batches: Batches) -> None:
        """Continue from this state; only process 0 restores its stream of dropout.

        The streams of a CPU and of a GPU have states of different lengths: where the part before
        ran on the other kind of device, dropout begins a stream of its own.
        """
        for name, parameter in model.named_parameters():
            if name in self.momentum:
                momentum = torch.empty_like(parameter).copy_(self.momentum[name])
                optimiser.state[parameter]["momentum_buffer"] = momentum
        for name, generator in _generators(batches).items():
            state = self.streams.get(name)
            if state is None or (name == "dropout" and rank()):
                continue
            if len(state) == len(generator.get_state()):
                generator.set_state(state)

    def update(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, batches: Batches, epochs: int
    ) -> None:
        """Record the state after ``epochs``."""
        self.epochs = epochs
        self.momentum = {
            name: optimiser.state[parameter]["momentum_buffer"].cpu().contiguous()
            for name, parameter in model.named_parameters()
            if optimiser.state[parameter].get("momentum_buffer") is not None
        }
        self.streams = {name: each.get_state() for name, each in _generators(batches).items()}


def _generators(batches: Batches) -> dict[str, torch.Generator]:
    """Return the generators of a training by name; dropout draws from the device's default one."""
    device = batches.labels.device
    dropout = torch.default_generator
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        dropout = torch.cuda.default_generators[index]
    return {
        "order": batches.order,
        "augmentation": batches.draws,
        "crops": batches.crops,
        "dropout": dropout,
    }
