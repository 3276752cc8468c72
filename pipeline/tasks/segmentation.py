"""Segmentation: one label a pixel; the score is the mean intersection over union (IoU)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.data.base import Dataset, Split
from pipeline.errors import UserError
from pipeline.evaluate.iou import confusion, mean_iou
from pipeline.tasks.base import Task
from pipeline.train.modes import evaluating
from pipeline.train.predict import outputs


class Segmentation(Task):
    """Keeps the confusion matrix and the losses of each image, float64 [N, K, K + 1].

    For image n and true class k, [n, k, j] is the number of pixels predicted as class j, and
    [n, k, K] the sum of their cross-entropies: enough to measure any set of images, in a few
    kilobytes an image. The probabilities of all pixels would take a thousand times as much, so
    there is no ensemble.
    """

    metric = "mean_iou"

    def predict(self, model: nn.Module, data: Dataset, split: Split) -> Tensor:
        """Return the counts and losses of every image of ``split`` [N, K, K + 1]."""
        kept, classes, done = [], len(data.classes), 0
        with evaluating(model), torch.inference_mode():
            for scores in outputs(model, split.images, data.mean, data.std):
                labels = split.labels[done : done + len(scores)].to(scores.device).long()
                done += len(scores)
                counts = confusion(scores.argmax(1), labels, classes).double()
                losses = cross_entropy(scores.float(), labels, reduction="none").double()
                of_class = [(losses * (labels == k)).sum((1, 2)) for k in range(classes)]
                kept.append(torch.cat([counts, torch.stack(of_class, 1)[:, :, None]], 2))
        return torch.cat(kept).cpu()

    def measure(self, predictions: Tensor, split: Split, data: Dataset) -> dict[str, float]:  # noqa: ARG002
        """Return the mean IoU of one confusion matrix of all images, and the mean cross-entropy.

        Raises:
            UserError: the network put out NaN or infinity.
        """
        total = predictions.sum(0)
        counts = total[:, :-1]
        loss = float(total[:, -1].sum() / counts.sum())
        if not math.isfinite(loss):
            raise UserError(
                "the network's outputs hold NaN or infinity, so training diverged: "
                "lower the learning rate."
            )
        return {"mean_iou": float(mean_iou(counts)), "loss": loss}

    def ensemble(self, predictions: Sequence[Tensor]) -> None:  # noqa: ARG002
        """Return None: the probabilities, which an ensemble would average, are not kept."""
        return

    def scores_shape(self, labels: Tensor, classes: int) -> tuple[int | None, ...]:
        """Return [N, K, H, W], with the sides of the labels."""
        return (len(labels), classes, *labels.shape[1:])


TASK = Segmentation()
