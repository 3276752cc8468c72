"""What a classifier is worth: pure functions of its logits [N, K] and the true labels [N].

Every mean counts examples, not batches; sums are float64. Shares and recalls lie in [0, 1].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.errors import UserError
from pipeline.evaluate.groups import group_recall

BINS = 15


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return bool [N]: the largest logit is the label's (the first of equal ones is taken).

    Args:
        logits: float [N, K].
        labels: int64 [N], each in [0, K).

    Raises:
        UserError: a logit is NaN or infinite.
        ValueError: the shapes do not fit, or there is no example.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise ValueError(f"logits {tuple(logits.shape)} do not fit labels {tuple(labels.shape)}")
    if not torch.isfinite(logits).all():
        raise UserError(
            "the network's logits hold NaN or infinity, so training diverged: "
            "lower the learning rate."
        )
    return logits.argmax(1) == labels


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the micro-averaged top-1 accuracy, (1/N) sum_i [argmax_k logits_ik = y_i]."""
    return int(hits(logits, labels).sum()) / len(labels)


def loss(logits: Tensor, labels: Tensor) -> float:
    """Return the mean cross-entropy, -(1/N) sum_i log softmax(logits_i)[y_i], in nats."""
    return float(cross_entropy(logits.double(), labels))


def calibration_error(logits: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Return the expected calibration error, sum_b (n_b / N) |accuracy_b - confidence_b|.

    Bin b holds the examples whose confidence, the largest softmax output, is in
    (b / bins, (b + 1) / bins]; accuracy_b and confidence_b are their means.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, Eq. 3.
    """
    right = hits(logits, labels).double()
    confidence = logits.double().softmax(1).amax(1)
    index = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, right - confidence)
    return float(gaps.abs().sum()) / len(labels)


def ensemble(members: Sequence[Tensor]) -> Tensor:
    """Return log((1/m) sum_j softmax(logits_j)) [N, K], the prediction ensemble's logits.

    Its softmax is the mean of the members' softmax outputs, so that every metric here scores the
    ensemble against the true labels as it would one network.

    Raises:
        ValueError: there is no member.
    """
    if not members:
        raise ValueError("an ensemble needs at least one member")
    stacked = torch.stack([member.double().log_softmax(1) for member in members])
    return stacked.logsumexp(0) - torch.tensor(len(members), dtype=torch.float64).log()


def summary(
    logits: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    groups: Mapping[str, tuple[Tensor, Sequence[str]]] | None = None,
    split: str = "test",
) -> dict[str, Any]:
    """Return all of the above as the numbers of metrics.json.

    Args:
        logits: float [N, K].
        labels: int64 [N].
        classes: the K classes' names; they are also the group set "class".
        groups: further group sets by name: each example's group [N], and the groups' names.
        split: the split measured, the prefix of its numbers' names.

    Returns:
        ``<split>_accuracy``, ``<split>_macro_accuracy`` (the mean over classes), ``<split>_loss``,
        ``<split>_examples``, ``calibration_error``, ``worst_class`` (a recall),
        ``worst_class_name``, and ``groups`` {group set: group_recall}.
    """
    right = hits(logits, labels)
    by_set = {"class": group_recall(right, labels, classes)}
    for name, (ids, names) in (groups or {}).items():
        by_set[name] = group_recall(right, ids, names)
    return {
        f"{split}_accuracy": accuracy(logits, labels),
        f"{split}_macro_accuracy": by_set["class"]["balanced"],
        f"{split}_loss": loss(logits, labels),
        f"{split}_examples": len(labels),
        "calibration_error": calibration_error(logits, labels),
        "worst_class": by_set["class"]["worst_recall"],
        "worst_class_name": by_set["class"]["worst_group"],
        "groups": by_set,
    }
