"""Evaluation of a classifier from its logits: accuracy, calibration and recall by group.

Fractions and recalls are in [0, 1]; sums are float64.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.data.base import Dataset, Split
from pipeline.evaluate.groups import group_recall
from pipeline.evaluate.metrics import accuracy, correct, loss

BINS = 15


def summary(
    predictions: Tensor, split: Split, data: Dataset, *, groups: bool = True
) -> dict[str, Any]:
    """Return the metrics of the test split.

    Args:
        predictions: logits, float [N, K].
        split: the test split, with labels int64 [N].
        data: the data set of the split.
        groups: whether to count the data set's groups; classes are always counted.

    Returns:
        test_accuracy, test_macro_accuracy (the mean over classes), test_loss, test_examples,
        calibration_error, worst_class (a recall), worst_class_name, and groups
        {group set: group_recall}.
    """
    is_correct = correct(predictions, split.labels)
    readable = data.groups.get("classes")
    names = readable.names if readable else data.classes
    by_set = {"class": group_recall(is_correct, split.labels, names)}
    for name, group in data.groups.items():
        if groups and name != "classes":
            by_set[name] = group_recall(is_correct, group.ids, group.names)
    return {
        "test_accuracy": accuracy(predictions, split.labels),
        "test_macro_accuracy": by_set["class"]["balanced"],
        "test_loss": loss(predictions, split.labels),
        "test_examples": len(split.labels),
        "calibration_error": calibration_error(predictions, split.labels),
        "worst_class": by_set["class"]["worst_recall"],
        "worst_class_name": by_set["class"]["worst_group"],
        "groups": by_set,
    }


def calibration_error(logits: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Return the expected calibration error, sum_b (n_b / N) |accuracy_b - confidence_b|.

    Bin b has the n_b examples whose confidence, the largest softmax output, is in
    (b / bins, (b + 1) / bins]; accuracy_b and confidence_b are their means.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, Eq. 3.
    """
    is_correct = correct(logits, labels).double()
    confidence = logits.double().softmax(1).amax(1)
    index = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, is_correct - confidence)
    return float(gaps.abs().sum()) / len(labels)
