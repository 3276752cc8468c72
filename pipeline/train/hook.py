"""Hook of the training loop: called at its start, in each step, after each epoch and at its end."""

import torch
from torch import nn


class Hook:
    """Changes a model while it trains; a subclass overrides the methods that it needs.

    Steps and epochs are counted from 1 over the whole training. Weights and gradients must be
    changed in place: a step that is replayed as a CUDA graph reads fixed addresses.

    Attributes: capturable, False for a hook that adds Python code to the forward or backward pass
    which must run in every step (pipeline/train/cuda_graph.py).
    """

    capturable = True

    def on_train_start(self, model: nn.Module) -> None:
        """Act before the optimiser is made; parameters that are added here are trained too."""

    def on_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        """Receive the optimiser, which has the momentum of the part of the training before."""

    def on_gradients(self, model: nn.Module, step: int) -> None:
        """Change the gradients of ``step``, before clipping and weight decay."""

    def on_step_end(self, model: nn.Module, step: int) -> None:
        """Act after optimiser step ``step``."""

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:
        """Act after epoch ``epoch``, before it is validated."""

    def on_train_end(self, model: nn.Module) -> None:
        """Put the model in its final state."""
