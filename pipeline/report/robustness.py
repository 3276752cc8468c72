"""Accuracy on corrupted images: the families of corruptions, and the corruption error."""

from collections.abc import Mapping, Sequence

import pandas as pd

from pipeline.report.results import KEY, Results

# CIFAR-C's families (Hendrycks & Dietterich, 2019); the last four are its extra types.
FAMILIES = {
    "noise": ["gaussian_noise", "shot_noise", "impulse_noise"],
    "blur": ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"],
    "weather": ["snow", "frost", "fog", "brightness"],
    "digital": ["contrast", "elastic_transform", "pixelate", "jpeg_compression"],
    "extra": ["speckle_noise", "gaussian_blur", "spatter", "saturate"],
}
EXTRA = "extra"


def synthetic(results: Results) -> bool:
    """Return whether any corrupted images were generated here instead of read from a file."""
    return bool(results.rows["ood_synthetic"].dropna().astype(bool).any())


def mean_over(table: pd.DataFrame, kept: str) -> pd.DataFrame:
    """Return the mean accuracy for every method, phase, seed and value of ``kept``."""
    means: pd.DataFrame = table.groupby([*KEY, kept], as_index=False).agg(
        accuracy=("accuracy", "mean")
    )
    return means


def images(results: Results) -> str:
    """Return what the corrupted images are, official or made here, in a sentence."""
    known = results.rows.dropna(subset=["ood_synthetic"])
    about, counts = known["ood_about"].dropna(), known["ood_images"].dropna()
    if synthetic(results):
        of = about.iloc[0] if len(about) else "the test images"
        return f"**Synthetic**: generated from {of}, not the official files."
    where = about.iloc[0] if len(about) else "the official files"
    number = f", {int(counts.iloc[0]):,} images under each corruption" if len(counts) else ""
    return f"**Official**: {where}{number}."


def corruption_error(
    model: Mapping[str, Sequence[float]], dense: Mapping[str, Sequence[float]]
) -> float | None:
    """Return the mean corruption error of a network's accuracies, by corruption and severity.

    mCE = mean over the 15 main corruptions c of  sum_s E(c, s) / sum_s E_dense(c, s),  with
    the errors E of severities s = 1..5; 1 is the dense network of the same seed. A corruption on
    which the dense network makes no error is left out; None where one was not measured.
    Source: Hendrycks & Dietterich, 2019, with the dense network in the place of AlexNet.
    """
    main = [name for family, names in FAMILIES.items() if family != EXTRA for name in names]
    if not set(main) <= model.keys() & dense.keys():
        return None
    errors = [(sum(1 - a for a in model[c]), sum(1 - a for a in dense[c])) for c in main]
    ratios = [ours / theirs for ours, theirs in errors if theirs > 0]
    return sum(ratios) / len(ratios) if ratios else None
