"""How a network's errors on corrupted images compare with the dense one's."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from pipeline.evaluate.corruptions.constants import NAMES_15

ByCorruption = Mapping[str, Sequence[float]]


def mean_corruption_error(
    model: ByCorruption, dense: ByCorruption, names: Sequence[str] = NAMES_15
) -> float | None:
    """Return how the model's errors compare with the dense network's: 1 is as many, 2 twice.

    mCE = mean_c (sum_s (1 - accuracy_{c,s})) / (sum_s (1 - dense_{c,s}))

    A corruption on which the dense network makes no error at all has no ratio and is left out;
    None, if that is all of them, or if one was not measured.

    Args:
        model: five accuracies by corruption, over severity.
        dense: the same of the dense network.
        names: the corruptions to average over.

    Source: Hendrycks & Dietterich 2019, Section 4, with the dense network in AlexNet's place.
    """
    if not set(names) <= model.keys() & dense.keys():
        return None
    ratios = [
        sum(1 - value for value in model[name]) / errors
        for name in names
        if (errors := sum(1 - value for value in dense[name])) > 0
    ]
    return fmean(ratios) if ratios else None
