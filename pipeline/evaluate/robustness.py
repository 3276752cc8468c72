"""Accuracy under corruptions, by corruption and severity, and what is lost beside another model."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.evaluate.corruptions.constants import NAMES_15, NAMES_19, SEVERITIES
from pipeline.evaluate.corruptions.official import CorruptedSet
from pipeline.evaluate.metrics import accuracy

ByCorruption = Mapping[str, Sequence[float]]


def robustness(predict: Callable[[Tensor], Tensor], corrupted: CorruptedSet) -> dict[str, Any]:
    """Return a network's accuracy on each corruption and severity, and the means.

    Args:
        predict: from images, uint8 [N, C, H, W], to logits, float [N, K].
        corrupted: the test set under all 19 corruptions.

    Returns:
        ``by_corruption`` {name: five accuracies, by severity}; ``mean_15`` and ``mean_19``, the
        means over all severities of the 15 main corruptions and of all 19 (the paper does not
        say which it means); ``synthetic``.

    Raises:
        UserError: the set has a label that the network has no class for.

    Source: paper, Appendix B.2.3, Figure 8 and Table 14; Hendrycks & Dietterich 2019.
    """
    by_corruption: dict[str, list[float]] = {}
    for name in NAMES_19:
        by_corruption[name] = []
        for severity in SEVERITIES:
            images, labels = corrupted.at(name, severity)
            logits = predict(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
            if labels.max() >= logits.shape[1]:
                raise UserError(
                    f"the corruption set has the label {labels.max()}, but the network only "
                    f"{logits.shape[1]} classes: set evaluate.corruptions_path to the set of the "
                    "same data."
                )
            by_corruption[name].append(accuracy(logits, torch.from_numpy(labels)))
    return {
        "by_corruption": by_corruption,
        "mean_15": fmean(fmean(by_corruption[name]) for name in NAMES_15),
        "mean_19": fmean(fmean(by_corruption[name]) for name in NAMES_19),
        "synthetic": corrupted.synthetic,
    }


def mean_corruption_error(
    model: ByCorruption, dense: ByCorruption, names: Sequence[str] = NAMES_15
) -> float | None:
    """Return how the model's errors compare with the dense network's: 1 is as many, 2 twice.

    mCE = mean_c (sum_s (1 - accuracy_{c,s})) / (sum_s (1 - dense_{c,s}))

    A corruption on which the dense network makes no error at all has no ratio and is left out;
    None, if that is all of them.

    Args:
        model: five accuracies by corruption, over severity.
        dense: the same of the dense network.
        names: the corruptions to average over.

    Source: Hendrycks & Dietterich 2019, Section 4.
    """
    ratios = [
        sum(1 - value for value in model[name]) / errors
        for name in names
        if (errors := sum(1 - value for value in dense[name])) > 0
    ]
    return fmean(ratios) if ratios else None
