"""The positions of sentences that count: no softmax over a vocabulary is taken where none does."""

from torch import Tensor


def counted_positions(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``scores`` and ``labels`` without the padding of sentences.

    Of sequences these are the positions that count, [P, K] and [P]: of a batch of sentences hardly
    more than half. Labels of images, one or one a pixel, count nearly everywhere, so that picking
    would cost more than it saves: those are returned as they are. Arguments: scores, float
    [B, K, ...]; labels, int64 [B, ...], negative where a position does not count.
    """
    if labels.ndim != 2:
        return scores, labels
    labels = labels.flatten()
    here = (labels >= 0).nonzero()[:, 0]
    return scores.movedim(1, -1).flatten(0, -2).index_select(0, here), labels[here]
