"""Translation: a target sentence a source sentence; better is a higher BLEU.

BLEU is a fraction in [0, 1], as all scores here are: 0.2456 is what the paper calls 24.56.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.data.base import IGNORE, Dataset, Split
from pipeline.errors import UserError
from pipeline.evaluate.bleu import of_split
from pipeline.models.parts.translator import Translator
from pipeline.tasks.base import Task
from pipeline.train.predict import evaluating

BATCH = 64  # sentences; their scores are float [BATCH, vocabulary, L]


def counted(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores [P, K] and labels [P] of the tokens that count.

    Of a batch of sentences that is hardly more than half, and a softmax over a vocabulary is dear.
    Arguments: scores, float [B, K, L]; labels, int64 [B, L], negative where a token does not count.
    """
    labels = labels.flatten()
    here = (labels >= 0).nonzero()[:, 0]
    return scores.movedim(1, -1).flatten(0, -2).index_select(0, here), labels[here]


class Translation(Task):
    """Keeps float32 [N, 3, L], a row each of what `predict` says."""

    metric = "bleu"

    def loss(
        self, scores: Tensor, labels: Tensor, *, smoothing: float = 0.0, reduction: str = "mean"
    ) -> Tensor:
        """Return the cross-entropy; no softmax is taken over padding."""
        return super().loss(*counted(scores, labels), smoothing=smoothing, reduction=reduction)

    def right(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return how many tokens score highest."""
        return super().right(*counted(scores, labels))

    def predict(self, model: nn.Module, data: Dataset, split: Split) -> Tensor:  # noqa: ARG002
        """Return the translations' ids, and how the references were predicted.

        Row 0: the ids that greedy search gives (whole numbers, exact in float32). Row 1: the
        logarithm of the probability of each reference token, given those before. Row 2: 1 where
        that token scores highest. Rows 1 and 2 are 0 where labels do not count.
        """
        if not isinstance(model, Translator):
            raise UserError("network.name is no translator: choose t5small or t5tiny")
        device = next(model.parameters()).device
        kept = []
        with evaluating(model), torch.inference_mode():
            batches = (side.split(BATCH) for side in (split.images, split.labels))
            for batch in zip(*batches, strict=True):
                tokens, labels = (side.to(device) for side in batch)
                scores = model(tokens).float()
                counted = labels != IGNORE
                own = labels.clamp(min=0)[:, None]
                likelihood = scores.log_softmax(1).gather(1, own)[:, 0].masked_fill(~counted, 0)
                first = (scores.argmax(1) == labels).float()
                rows = [model.generate(tokens[:, 0]).float(), likelihood, first]
                kept.append(torch.stack(rows, 1).cpu())
        return torch.cat(kept)

    def measure(self, predictions: Tensor, split: Split, data: Dataset) -> dict[str, float]:
        """Return the BLEU of the translations and the mean cross-entropy of the references."""
        likelihood = predictions[:, 1][split.labels != IGNORE].double()
        if not likelihood.isfinite().all():
            raise UserError(
                "the network's scores hold NaN or infinity, so training diverged: "
                "lower the learning rate."
            )
        score = of_split(predictions[:, 0], split, data).score
        return {"bleu": score, "loss": -float(likelihood.mean())}

    def ensemble(self, predictions: Sequence[Tensor]) -> None:  # noqa: ARG002
        """Return None: sentences that were written apart have no mean."""
        return


TASK = Translation()
