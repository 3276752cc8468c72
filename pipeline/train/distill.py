"""Distillation from the dense network: its soft predictions as a second target (Hinton et al.)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from pipeline.errors import UserError
from pipeline.train.criterion import Criterion


class Distilled(Criterion):
    """A classification criterion with the predictions of a dense network as a second target.

        L = (1 - a) L_task + a T^2 KL(softmax(z_dense / T) || softmax(z / T))

    z and z_dense are the scores of the network and of the dense one, which sees the same augmented
    batch in evaluation mode. T^2 keeps the two gradients in proportion for every T. Correct
    predictions are those of the task.

    Args:
        task: the criterion of L_task.
        dense: the dense network, on the device of the batches; it is put in evaluation mode.
        weight: a, in [0, 1].
        temperature: T, above 0.

    Raises:
        UserError: a weight or temperature out of its range.

    Source: Hinton, Vinyals & Dean 2015, section 2.
    """

    def __init__(
        self, task: Criterion, dense: nn.Module, *, weight: float, temperature: float
    ) -> None:
        if not 0 <= weight <= 1:
            raise UserError(f"retrain.distill is {weight}, but must be in [0, 1].")
        if not temperature > 0:
            raise UserError(f"retrain.temperature is {temperature}, but must be greater than 0.")
        self.task, self.dense = task, dense.eval().requires_grad_(False)
        self.weight, self.temperature = weight, temperature
        self.images: Tensor | None = None

    def observe(self, images: Tensor) -> None:
        """Compute z_dense of a batch, once for all passes over it."""
        if images is not self.images:
            self.images = images
            with torch.no_grad():
                self.scores = self.dense(images).float()

    def loss(
        self, scores: Tensor, labels: Tensor, *, smoothing: float = 0.0, reduction: str = "mean"
    ) -> Tensor:
        """Return L over the observed batch; the arguments are those of `Criterion.loss`."""
        task = self.task.loss(scores, labels, smoothing=smoothing, reduction=reduction)
        soft, dense = (log_softmax(each / self.temperature, 1) for each in (scores, self.scores))
        over = "batchmean" if reduction == "mean" else reduction
        divergence = kl_div(soft, dense, reduction=over, log_target=True)
        return (1 - self.weight) * task + self.weight * self.temperature**2 * divergence

    def correct(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the task's number of correct predictions."""
        return self.task.correct(scores, labels)

    def counted(self, labels: Tensor) -> Tensor:
        """Return the task's number of counted positions."""
        return self.task.counted(labels)
