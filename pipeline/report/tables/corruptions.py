"""The tables of accuracy on corrupted images: by method, and by severity."""

import pandas as pd

from pipeline.report.results import KEY, Results
from pipeline.report.statistics import over_seeds, spread
from pipeline.report.tables.markdown import number, table
from pipeline.report.tables.scores import name

# The families of CIFAR-C (Hendrycks & Dietterich, 2019); "extra" has its four additional types.
FAMILIES = {
    "noise": ["gaussian_noise", "shot_noise", "impulse_noise"],
    "blur": ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"],
    "weather": ["snow", "frost", "fog", "brightness"],
    "digital": ["contrast", "elastic_transform", "pixelate", "jpeg_compression"],
    "extra": ["speckle_noise", "gaussian_blur", "spatter", "saturate"],
}
SEVERITIES = range(1, 6)


def section(results: Results) -> str:
    """Return the mean accuracies and the mean corruption error, and the accuracies by severity."""
    n = len(results.params.seeds)
    severities = mean_over(results.at_end("corruptions"), "severity")
    means, by_severity = [], []
    for method in results.methods:
        phase = 0 if method == "dense" else results.final
        accuracies = [over_seeds(results, method, phase, f"ood_accuracy_{k}") for k in (15, 19)]
        if any(accuracies):
            error = number(over_seeds(results, method, phase, "mce"), n, digits=1)
            text = name(results, method)
            means.append([text, *(number(accuracy, n) for accuracy in accuracies), error])
            rows = severities[severities["method"] == method]
            cells = [rows.loc[rows["severity"] == s, "accuracy"].tolist() for s in SEVERITIES]
            by_severity.append([text, *(number(spread(values), n) for values in cells)])
    if not means:
        return "Robustness was not evaluated.\n"
    headers = ["", "mean of 15 types (%)", "mean of 19 types (%)", "mCE (dense = 100)"]
    return (
        f"{images(results)} The means are over severities 1 to 5; `corruptions.csv` has every type "
        "and severity. mCE is the mean over the 15 types of a network's error divided by that of "
        "the dense network of the same seed; below 100 means fewer errors. (The benchmark divides "
        "by AlexNet's errors, so published values are not comparable.)\n\n"
        + table(headers, means)
        + "\nBy severity, the mean over all types in percent:\n\n"
        + table(["", *map(str, SEVERITIES)], by_severity)
    )


def synthetic(results: Results) -> bool:
    """Return whether any corrupted images were generated instead of read from official files."""
    return bool(results.rows["ood_synthetic"].dropna().astype(bool).any())


def mean_over(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the mean accuracy for every method, phase, seed and value of ``column``."""
    means: pd.DataFrame = rows.groupby([*KEY, column], as_index=False).agg(
        accuracy=("accuracy", "mean")
    )
    return means


def images(results: Results) -> str:
    """Return a sentence on the source of the corrupted images: official files, or generated."""
    known = results.rows.dropna(subset=["ood_synthetic"])
    about, counts = known["ood_about"].dropna(), known["ood_images"].dropna()
    if synthetic(results):
        source = about.iloc[0] if len(about) else "the test images"
        return f"**Synthetic**: generated from {source}, not the official files."
    source = about.iloc[0] if len(about) else "the official files"
    count = f", {int(counts.iloc[0]):,} images under each corruption" if len(counts) else ""
    return f"**Official**: {source}{count}."
