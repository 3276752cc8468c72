"""The hook of the training loop: what else happens to a model while it trains."""

from torch import nn


class Hook:
    """What else happens to the model while it trains; a subclass overrides what it needs.

    Steps and epochs are counted from 1 over the whole training. A hook changes weights and
    gradients in place: a step that is replayed as a CUDA graph reads them where they were.

    Attributes: capturable, False for a hook that adds Python to the forward or backward pass which
    must run in every step (pipeline/train/cuda_graph.py).
    """

    capturable = True

    def on_train_start(self, model: nn.Module) -> None:
        """Act before the optimiser is made: it trains the parameters that are added here too."""

    def on_gradients(self, model: nn.Module, step: int) -> None:
        """Change the gradients of ``step``, before they are clipped and decay is added."""

    def on_step_end(self, model: nn.Module, step: int) -> None:
        """Act after optimiser step ``step``."""

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:
        """Act after epoch ``epoch``, before it is validated."""

    def on_train_end(self, model: nn.Module) -> None:
        """Leave the model as it shall be kept."""
