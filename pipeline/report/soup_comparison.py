"""Is the soup better? Said from the numbers, with their spread, and also where it is not."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.report.labels import label, sparsity
from pipeline.report.results import Results
from pipeline.report.statistics import Difference, by_seed, difference
from pipeline.report.tables.markdown import signed, table

_BASELINES = ["imp", "imp_mx", "imp_reprune"]
_ONE_COPY = {"bimp_sms": "bimp", "gmp_sms": "gmp", "dpf_sms": "dpf"}  # the same without soups


@dataclass(frozen=True)
class Comparison:
    """A soup of one phase against a rival measured on the same seeds."""

    soup: str
    phase: int
    rival: str  # "best_candidate", or a method
    difference: Difference


def comparisons(results: Results) -> Iterator[Comparison]:
    """Compare every soup of every phase with its best candidate and its rivals among the methods.

    They are IMP in its plain forms, or, for GMP + SMS and its like, the method in one copy.
    """
    for soup in results.soups:
        for phase in results.phases:
            ours = by_seed(results, soup, phase, "test_score")
            best = by_seed(results, soup, phase, "best_candidate_test_score")
            rivals = {"best_candidate": best}
            methods = [_ONE_COPY[soup]] if soup in _ONE_COPY else _BASELINES
            for method in methods:
                if method in results.methods:
                    rivals[method] = by_seed(results, method, phase, "test_score")
            for rival, theirs in rivals.items():
                found = difference(ours, theirs)
                if found is not None:
                    yield Comparison(soup, phase, rival, found)


def section(results: Results) -> str:
    """Return the answer for the last phase in words, and for all phases as a table."""
    found = list(comparisons(results))
    if not found:
        return "No soup has been measured beside its candidates or IMP trained as long.\n"
    lines = []
    for soup in results.soups:
        last = [c for c in found if (c.soup, c.phase) == (soup, results.final)]
        if last:
            at = sparsity(results.phases[results.final])
            lines += [f"At {at} sparsity {label(soup, results.params.m)} is", ""]
            lines += [f"- {_claim(c.difference, _name(results, c.rival))}" for c in last]
            lines.append("")
    lines += [_caution(results, found), "", _table(results, found)]
    return "\n".join(lines)


def _name(results: Results, rival: str) -> str:
    if rival == "best_candidate":
        return "its best candidate"
    return label(rival, results.params.m)


def _claim(found: Difference, rival: str) -> str:
    points = f"{abs(100 * found.mean):.2f}"
    if points == "0.00":
        claim = f"level with {rival}"
    else:
        claim = f"{points} points {'above' if found.mean > 0 else 'below'} {rival}"
    if found.n == 1:
        return claim
    return f"{claim} (n = {found.n}{_interval(found)}: {found.reading})"


def _interval(found: Difference) -> str:
    if found.interval is None:
        return ""
    low, high = (signed(100 * end) for end in found.interval)
    return f", 95 % interval {low} to {high}"


def _caution(results: Results, found: list[Comparison]) -> str:
    notes = []
    if any(c.difference.n == 1 for c in found):
        notes.append("One seed cannot tell a difference from noise: set `seeds: [0, 1, 2]`.")
    images = results.rows["test_examples"].max()
    if images > 0:
        one = f"; one is {100 / images:.2f} points" if results.metric.name == "accuracy" else ""
        notes.append(f"The test set has {images:.0f} examples{one}.")
    notes.append(
        f"Best candidate: the one with the highest validation {results.metric.label}, reported on "
        "the test set. "
        "Differences are taken seed by seed; ± is their standard deviation, and an interval is "
        "that of its own row, not corrected for the number of rows."
    )
    return " ".join(notes)


def _table(results: Results, found: list[Comparison]) -> str:
    rows = []
    for c in found:
        d = c.difference
        points = signed(100 * d.mean) + (f" ± {100 * d.std:.2f}" if d.std is not None else "")
        rows.append(
            [
                label(c.soup, results.params.m),
                _name(results, c.rival),
                f"{c.phase} ({sparsity(results.phases[c.phase])})",
                points,
                f"{d.wins} of {d.n}",
                d.reading,
            ]
        )
    headers = ["soup", "against", "phase", "points", "above in seeds", "reading"]
    return table(headers, rows, names=3)
