"""Accuracy on corrupted images: the families of corruptions, and the corruption error."""

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


def corruption_errors(results: Results, method: str) -> list[float]:
    """Return the mean corruption error of ``method`` at the last phase for each seed.

    mCE = mean over the 15 main corruptions c of  sum_s E(c, s) / sum_s E_dense(c, s),  with
    the errors E of severities s = 1..5; 1 is the dense network of the same seed. A corruption on
    which the dense network makes no error is left out, and so is a seed that lacks one.
    Source: Hendrycks & Dietterich, 2019, with the dense network in the place of AlexNet.
    """
    main = [name for family, names in FAMILIES.items() if family != EXTRA for name in names]
    means = mean_over(results.at_end("corruptions"), "corruption")
    errors = (1 - means.set_index(["method", "seed", "corruption"])["accuracy"]).to_dict()
    found = []
    for seed in results.params.seeds:
        ours = [errors.get((method, seed, name)) for name in main]
        dense = [errors.get(("dense", seed, name)) for name in main]
        if None not in (*ours, *dense):
            ratios = [a / b for a, b in zip(ours, dense, strict=True) if a is not None and b]
            if ratios:
                found.append(sum(ratios) / len(ratios))
    return found
