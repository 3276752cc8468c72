"""Metrics of a classifier from its logits [N, K] and the labels [N].

Means are over examples, not batches; sums are float64. Fractions and recalls are in [0, 1].
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.errors import UserError


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return bool [N], True where the largest logit (the first of equal ones) is the label's.

    Args:
        logits: float [N, K].
        labels: int64 [N], each in [0, K).

    Raises:
        UserError: a logit is NaN or infinite.
        ValueError: the shapes do not match, or there is no example.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise ValueError(f"logits {tuple(logits.shape)} do not fit labels {tuple(labels.shape)}")
    check_finite(finite=bool(torch.isfinite(logits).all()))
    return logits.argmax(1) == labels


def check_finite(*, finite: bool) -> None:
    """Refuse logits that are not all ``finite``.

    Raises:
        UserError: ``finite`` is False.
    """
    if not finite:
        raise UserError(
            "the network's logits hold NaN or infinity, so training diverged: "
            "lower the learning rate."
        )


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the micro-averaged top-1 accuracy, (1/N) sum_i [argmax_k logits_ik = y_i]."""
    return int(correct(logits, labels).sum()) / len(labels)


def loss(logits: Tensor, labels: Tensor) -> float:
    """Return the mean cross-entropy, -(1/N) sum_i log softmax(logits_i)[y_i], in nats."""
    return float(cross_entropy(logits.double(), labels))


def ensemble(members: Sequence[Tensor]) -> Tensor:
    """Return log((1/m) sum_j softmax(logits_j)) [N, K], the prediction ensemble's logits.

    Its softmax is the mean of the members' softmax outputs, so that the metrics here apply to the
    ensemble as to one network.

    Raises:
        ValueError: there is no member.
    """
    if not members:
        raise ValueError("an ensemble needs at least one member")
    stacked = torch.stack([member.double().log_softmax(1) for member in members])
    return stacked.logsumexp(0) - torch.tensor(len(members), dtype=torch.float64).log()
