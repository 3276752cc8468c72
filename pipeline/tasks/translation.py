"""Translation: a target sentence for each source sentence; the score is BLEU.

BLEU is a fraction in [0, 1], like all scores here: 0.2456 is 24.56 in the paper.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.data.base import IGNORE, Dataset, Split
from pipeline.errors import UserError
from pipeline.evaluate.bleu import split_bleu
from pipeline.models._t5 import Translator
from pipeline.tasks.base import Task
from pipeline.train.modes import evaluating
from pipeline.train.placement import to_device
from pipeline.train.predict import batch_on


def rows(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores [B l, K] and labels [B l] of all scored tokens.

    With classes last, as translators lay them out in memory, a softmax over them is fastest.
    Arguments: scores, float [B, K, l]; labels, int64 [B, L], `IGNORE` behind l.
    """
    return scores.transpose(1, 2).flatten(0, 1), labels[:, : scores.shape[2]].flatten()


class Translation(Task):
    """Keeps translations, likelihoods and correct tokens, float32 [N, 3, L] (`predict`)."""

    metric = "bleu"

    def loss(
        self, scores: Tensor, labels: Tensor, *, smoothing: float = 0.0, reduction: str = "mean"
    ) -> Tensor:
        """Return the cross-entropy of the counted tokens."""
        return super().loss(*rows(scores, labels), smoothing=smoothing, reduction=reduction)

    def correct(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return at how many counted tokens the label has the highest score."""
        return super().correct(*rows(scores, labels))

    def predict(self, model: nn.Module, data: Dataset, split: Split) -> Tensor:  # noqa: ARG002
        """Return the translations' ids, and the predictions of the reference tokens.

        Row 0: the ids of greedy search (whole numbers, exact in float32). Row 1: the
        log-probability of each reference token given those before. Row 2: 1 where that token
        scores highest. Rows 1 and 2 are 0 at tokens that are not counted.
        """
        if not isinstance(model, Translator):
            raise UserError("network.name is no translator: choose t5small or t5tiny")
        device = next(model.parameters()).device
        kept = []
        with evaluating(model), torch.inference_mode():
            size = batch_on(device, split.images)
            for start in range(0, len(split), size):
                tokens, labels = (
                    to_device(side[start : start + size], device)
                    for side in (split.images, split.labels)
                )
                scores = model(tokens).float()
                predicted = torch.zeros(len(tokens), 3, tokens.shape[2], device=device)
                predicted[:, 0] = model.generate(tokens[:, 0])
                length = scores.shape[2]
                labels = labels[:, :length]
                classes = labels.clamp(min=0)[:, None]
                likelihood = scores.log_softmax(1).gather(1, classes)[:, 0]
                predicted[:, 1, :length] = likelihood.masked_fill(labels == IGNORE, 0)
                predicted[:, 2, :length] = scores.argmax(1) == labels
                kept.append(predicted)
        return torch.cat(kept).cpu()

    def measure(self, predictions: Tensor, split: Split, data: Dataset) -> dict[str, float]:
        """Return the BLEU of the translations and the mean cross-entropy of the references."""
        likelihood = predictions[:, 1][split.labels != IGNORE].double()
        if not likelihood.isfinite().all():
            raise UserError(
                "the network's scores hold NaN or infinity, so training diverged: "
                "lower the learning rate."
            )
        score = split_bleu(predictions[:, 0], split, data).score
        return {"bleu": score, "loss": -float(likelihood.mean())}

    def ensemble(self, predictions: Sequence[Tensor]) -> None:  # noqa: ARG002
        """Return None: sentences cannot be averaged."""
        return

    def scores_shape(self, labels: Tensor, classes: int) -> tuple[int | None, ...]:
        """Return [N, K, l]; a network may leave out columns of padding."""
        return (len(labels), classes, None)


TASK = Translation()
