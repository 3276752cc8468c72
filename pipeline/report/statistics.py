"""Means, spreads and differences over seeds, with the number of seeds they rest on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from scipy import special

from pipeline.report.results import BEST_BY_TEST, SHRUNK, Results

MEASURES = [
    "test_score",
    "test_loss",
    "val_score",
    "calibration_error",
    "worst_class",
    "test_macro_accuracy",
    "test_worst_group",
    "best_candidate_test_score",
    "mean_candidate_test_score",
    BEST_BY_TEST,
    "ensemble_test_score",
    "ood_accuracy_15",
    "ood_accuracy_19",
    "mce",
    "speedup",
    "nonzeros",
    "stored_bytes",
    "sparsity_of_mean",
    "sparsity_of_mean_unaligned",
    "l2_mean",
    "angle_mean_degrees",
    "included",
    *SHRUNK,
]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1 in the denominator; None for one seed)."""

    n: int
    mean: float
    std: float | None


@dataclass(frozen=True)
class Difference:
    """Seed-by-seed differences d: mean, standard deviation and 95 % interval of the mean.

    The interval is mean ± t(0.975, n - 1) · std / √n, None where there is no spread to judge by:
    for one seed, and for seeds that agree exactly.
    """

    n: int
    mean: float
    std: float | None
    interval: tuple[float, float] | None
    wins: int

    @property
    def reading(self) -> str:
        """What may be said: better, worse, or not told apart."""
        if self.n == 1:
            return "one seed cannot tell"
        if self.interval is None:
            return "no spread to judge by"
        low, high = self.interval
        if low > 0:
            return "better"
        return "worse" if high < 0 else "not told apart"


def spread(values: Sequence[float]) -> Spread | None:
    """Return mean and standard deviation of ``values``, or None if there are none."""
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Spread(1, mean, None)
    return Spread(n, mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)))


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Compare two measurements by seed, over the seeds that have both; None if there are none."""
    deltas = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    found = spread(deltas)
    if found is None:
        return None
    interval = None
    if found.std is not None and found.std > 1e-12:
        half = float(special.stdtrit(found.n - 1, 0.975)) * found.std / math.sqrt(found.n)
        interval = (found.mean - half, found.mean + half)
    return Difference(found.n, found.mean, found.std, interval, sum(d > 0 for d in deltas))


def by_seed(results: Results, method: str, phase: int, measure: str) -> dict[int, float]:
    """Return one measure of a method and phase for every seed that has it."""
    cells = results.cells.get((method, phase), {})
    found = {seed: record.get(measure) for seed, record in cells.items()}
    return {seed: float(value) for seed, value in found.items() if not pd.isna(value)}


def over_seeds(results: Results, method: str, phase: int, measure: str) -> Spread | None:
    """Return mean, standard deviation and n of one measure of a method and phase."""
    return spread(list(by_seed(results, method, phase, measure).values()))


def reached(results: Results, method: str, phase: int) -> float:
    """Return the mean sparsity of a method after a phase: the planned one, or what came out."""
    found = over_seeds(results, method, phase, "sparsity")
    return results.phases[phase] if found is None else found.mean


def summary(results: Results) -> pd.DataFrame:
    """Return every measure of every method and phase over the seeds, one a row."""
    records = []
    for method, phase, planned in results.planned:
        sparsity = reached(results, method, phase) if phase else planned
        for measure in (*MEASURES, *results.by_group):
            found = over_seeds(results, method, phase, measure)
            if found is not None:
                records.append((method, phase, sparsity, measure, found.n, found.mean, found.std))
    columns = ["method", "phase", "sparsity", "measure", "n", "mean", "std"]
    return pd.DataFrame(records, columns=columns)
