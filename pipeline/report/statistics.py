"""Statistics over seeds: mean, standard deviation, paired differences and their intervals."""

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

    The interval is mean ± t(0.975, n - 1) · std / √n; None for one seed and for std = 0.
    ``wins`` is the number of seeds with d > 0.
    """

    n: int
    mean: float
    std: float | None
    interval: tuple[float, float] | None
    wins: int

    @property
    def reading(self) -> str:
        """The conclusion at the 95 % level: better, worse, or not significant."""
        if self.n == 1:
            return "one seed: no interval"
        if self.interval is None:
            return "equal in all seeds: no interval"
        low, high = self.interval
        if low > 0:
            return "better"
        return "worse" if high < 0 else "not significant"

    @property
    def p_value(self) -> float | None:
        """The two-sided p value of the paired t test, where there is an interval.

        p = 2 P(T > |mean| / (std / √n)), T with n - 1 degrees of freedom.
        """
        if self.std is None or self.interval is None:
            return None
        statistic = abs(self.mean) / (self.std / math.sqrt(self.n))
        return float(2 * special.stdtr(self.n - 1, -statistic))


def spread(values: Sequence[float]) -> Spread | None:
    """Return mean and standard deviation of ``values``, or None if there are no values."""
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Spread(1, mean, None)
    return Spread(n, mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)))


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Return ``ours`` minus ``theirs`` over the seeds that have both; None if no seed has."""
    deltas = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    moments = spread(deltas)
    if moments is None:
        return None
    wins = sum(d > 0 for d in deltas)
    return Difference(moments.n, moments.mean, moments.std, interval(moments), wins)


def interval(values: Spread) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean, mean ± t(0.975, n - 1) · std / √n.

    None for one value and for std = 0.
    """
    n, mean, std = values.n, values.mean, values.std
    if std is None or std <= 1e-12:
        return None
    half = float(special.stdtrit(n - 1, 0.975)) * std / math.sqrt(n)
    return mean - half, mean + half


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number k, in the order given.

        p~_(i) = max over j <= i of min(1, (k - j + 1) p_(j)),    p_(1) <= ... <= p_(k)

    Rejecting where p~ <= a keeps the probability of any false rejection at most a.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def by_seed(results: Results, method: str, phase: int, measure: str) -> dict[int, float]:
    """Return one measure of a method and phase for every seed that has it."""
    records = results.cells.get((method, phase), {})
    values = {seed: record.get(measure) for seed, record in records.items()}
    return {seed: float(value) for seed, value in values.items() if not pd.isna(value)}


def over_seeds(results: Results, method: str, phase: int, measure: str) -> Spread | None:
    """Return mean, standard deviation and n of one measure of a method and phase."""
    return spread(list(by_seed(results, method, phase, measure).values()))


def mean_sparsity(results: Results, method: str, phase: int) -> float:
    """Return the mean sparsity of a method after a phase; the planned one if none was measured."""
    measured = over_seeds(results, method, phase, "sparsity")
    return results.phases[phase] if measured is None else measured.mean


def summary(results: Results) -> pd.DataFrame:
    """Return a table with mean, std and n over the seeds of every measure, method and phase."""
    records = []
    for method, phase, planned in results.planned:
        sparsity = mean_sparsity(results, method, phase) if phase else planned
        for measure in (*MEASURES, *results.by_group):
            values = over_seeds(results, method, phase, measure)
            if values is not None:
                row = (method, phase, sparsity, measure, values.n, values.mean, values.std)
                records.append(row)
    columns = ["method", "phase", "sparsity", "measure", "n", "mean", "std"]
    return pd.DataFrame(records, columns=columns)
