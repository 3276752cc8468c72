"""Accuracy on corrupted images: the families of corruptions, and what the images are."""

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
