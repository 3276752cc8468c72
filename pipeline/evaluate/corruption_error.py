"""Mean corruption error (mCE): errors on corrupted images relative to the dense network."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from pipeline.evaluate.corruptions.constants import NAMES_15

ByCorruption = Mapping[str, Sequence[float]]


def mean_corruption_error(
    model: ByCorruption, dense: ByCorruption, names: Sequence[str] = NAMES_15
) -> float | None:
    """Return the mean ratio of the model's errors to the dense network's; 1 means equal errors.

    mCE = mean_c (sum_s (1 - accuracy_{c,s})) / (sum_s (1 - dense_{c,s}))

    A corruption without an error of the dense network has no ratio and is left out. The result is
    None if no ratio is left, or if a corruption of ``names`` was not measured.

    Args:
        model: by corruption, the accuracies at the five severities.
        dense: the same for the dense network.
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
