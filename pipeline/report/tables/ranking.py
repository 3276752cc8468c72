"""The table of methods at an equal budget: ranked by the test score, with corrected tests."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from pipeline.report.labels import epochs
from pipeline.report.results import Results
from pipeline.report.statistics import (
    Difference,
    by_seed,
    difference,
    holm,
    interval,
    over_seeds,
    spread,
)
from pipeline.report.tables.markdown import NONE, number, signed, table
from pipeline.report.tables.scores import name

REFERENCE = "imp"
LEVEL = 0.05


@dataclass(frozen=True)
class PairedTest:
    """A paired difference, and its p value after Holm's correction; None without a spread."""

    difference: Difference
    p_value: float | None


Tests = dict[tuple[str, str], PairedTest]  # by method and rival


def section(results: Results) -> str:
    """Return the ranking of the methods; "" without a budget."""
    if results.params.budget is None:
        return ""
    methods = _ranked(results)
    twins = _twins(results, methods)
    distinct = [method for method in methods if method not in twins]
    pairs = _tests(results, ((low, high) for high, low in combinations(distinct, 2)))
    columns = {"the best": (distinct[0], pairs)}
    if REFERENCE in methods:
        rival = twins.get(REFERENCE, REFERENCE)
        to_rival = _tests(results, ((each, rival) for each in distinct if each != rival))
        columns = {name(results, REFERENCE): (rival, to_rival)} | columns
    rows = [
        [
            _name(results, method, twins.get(method)),
            *_score(results, method),
            *(
                _cell(tests.get((twins.get(method, method), rival)), len(results.params.seeds))
                for rival, tests in columns.values()
            ),
            *_cost(results, method),
        ]
        for method in methods
    ]
    headers = [
        *("", f"{results.metric.label} (%)", "95 % interval"),
        *(f"minus {rival}" for rival in columns),
        *("training images", "sparse MACs (millions)"),
    ]
    counts = {rival: len(tests) for rival, (_, tests) in columns.items()}
    return f"{_notes(results, counts)}\n\n{table(headers, rows)}"


def _ranked(results: Results) -> list[str]:
    """Return all methods but the dense network: those with the highest mean test score first."""
    scores = {
        method: over_seeds(results, method, results.final, "test_score")
        for method in results.methods
        if method != "dense"
    }
    return sorted(scores, key=lambda method: -(s.mean if (s := scores[method]) else -1.0))


def _twins(results: Results, methods: list[str]) -> dict[str, str]:
    """Return the methods whose networks are those of an earlier one, with that one."""
    first: dict[tuple[str, ...], str] = {}
    twins = {}
    for method in methods:
        records = results.cells[method, results.final]
        other = first.setdefault(tuple(record["model"] for record in records.values()), method)
        if other != method:
            twins[method] = other
    return twins


def _tests(results: Results, pairs: Iterable[tuple[str, str]]) -> Tests:
    """Return the differences of all ``pairs``, method minus rival, corrected for their number.

    One without a spread has no p value and counts as 1 in the correction.
    """
    differences = {}
    for pair in pairs:
        ours, theirs = (by_seed(results, each, results.final, "test_score") for each in pair)
        gap = difference(ours, theirs)
        if gap is not None:
            differences[pair] = gap
    p_values = [each.p_value for each in differences.values()]
    adjusted = holm([1.0 if p is None else p for p in p_values])
    return {
        pair: PairedTest(gap, None if p is None else corrected)
        for (pair, gap), p, corrected in zip(differences.items(), p_values, adjusted, strict=True)
    }


def _name(results: Results, method: str, twin: str | None) -> str:
    text = name(results, method)
    return text if twin is None else f"{text} (the networks of {name(results, twin)})"


def _score(results: Results, method: str) -> list[str]:
    """Return the mean with its deviation, and the 95 % interval of the mean."""
    score = over_seeds(results, method, results.final, "test_score")
    if score is None:
        return [NONE, NONE]
    text, ends = number(score, len(results.params.seeds)), interval(score)
    if ends is not None:
        return [text, f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}"]
    return [text, "n = 1" if score.n == 1 else "equal in all seeds"]


def _cell(test: PairedTest | None, seeds: int) -> str:
    """Return the points and the corrected p value, bold where the difference is significant."""
    if test is None:
        return NONE
    gain = test.difference
    notes = [f"n = {gain.n}"] if gain.n == 1 or gain.n != seeds else []
    if test.p_value is not None:
        notes.append("p < 0.001" if test.p_value < 0.001 else f"p = {test.p_value:.3f}")
    elif gain.n > 1:
        notes.append("equal in all seeds")
    text = f"{signed(100 * gain.mean)} ({', '.join(notes)})"
    return f"**{text}**" if test.p_value is not None and test.p_value < LEVEL else text


def _cost(results: Results, method: str) -> list[str]:
    """Return the training images, and the multiply-accumulates of the last network."""
    images = results.trained_images.get(method)
    macs = by_seed(results, method, results.final, "macs")
    speedups = by_seed(results, method, results.final, "speedup")
    sparse = spread([macs[seed] / speedups[seed] for seed in macs if seed in speedups])
    return [
        NONE if images is None else f"{images:,}",
        NONE if sparse is None else f"{1e-6 * sparse.mean:,.3f}",
    ]


def _notes(results: Results, comparisons: dict[str, int]) -> str:
    """Return what is equal, how many ``comparisons`` the tests count, and what n = 1 cannot say."""
    budget = epochs(results.params.budget or 0)
    notes = [
        f"Every method takes {budget} of forward-backward passes, pretraining and all copies "
        "included, and is ranked by its score on the test set after the last phase."
    ]
    if len(results.params.seeds) == 1:
        notes.append("One seed (n = 1) gives no interval and no test: set `seeds: [0, 1, 2]`.")
    else:
        counted = " and ".join(f"{count} for {rival}" for rival, count in comparisons.items())
        notes.append(
            "Differences are in points and paired by seed; p is that of the two-sided t test after "
            f"Holm's correction for the number of comparisons: {counted}, which counts all pairs "
            "of methods, as the best is chosen by the same scores. Bold: p < 0.05."
        )
    notes.append("Sparse MACs are those of one image without those of pruned weights.")
    return " ".join(notes)
