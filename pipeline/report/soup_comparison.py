"""Compares every soup with its best candidate and its baselines, seed by seed."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.plan.declared import declared
from pipeline.report.labels import label, sparsity
from pipeline.report.results import Results
from pipeline.report.statistics import Difference, by_seed, difference
from pipeline.report.tables.markdown import signed, table


@dataclass(frozen=True)
class Comparison:
    """A soup of one phase minus a rival, over the seeds that have both."""

    soup: str
    phase: int
    rival: str  # "best_candidate", or a method
    difference: Difference


def comparisons(results: Results) -> Iterator[Comparison]:
    """Compare every soup of every phase with its best candidate and its BASELINES that were run."""
    for soup in results.soups:
        baselines = declared(soup).baselines
        for phase in results.phases:
            ours = by_seed(results, soup, phase, "test_score")
            rivals = {
                "best_candidate": by_seed(results, soup, phase, "best_candidate_test_score"),
                **{
                    method: by_seed(results, method, phase, "test_score")
                    for method in results.methods
                    if method in baselines
                },
            }
            for rival, theirs in rivals.items():
                gain = difference(ours, theirs)
                if gain is not None:
                    yield Comparison(soup, phase, rival, gain)


def section(results: Results) -> str:
    """Return the differences of the last phase in sentences, and those of all phases in a table."""
    compared = list(comparisons(results))
    if not compared:
        return "There is no soup with a measured candidate or baseline to compare it with.\n"
    lines = []
    for soup in results.soups:
        last = [c for c in compared if (c.soup, c.phase) == (soup, results.final)]
        if last:
            at = sparsity(results.phases[results.final])
            lines += [f"At {at} sparsity {label(soup, results.params.m)} is", ""]
            lines += [f"- {_sentence(c.difference, _name(results, c.rival))}" for c in last]
            lines.append("")
    lines += [_notes(results, compared), "", _table(results, compared)]
    return "\n".join(lines)


def _name(results: Results, rival: str) -> str:
    if rival == "best_candidate":
        return "its best candidate"
    return label(rival, results.params.m)


def _sentence(gain: Difference, rival: str) -> str:
    points = f"{abs(100 * gain.mean):.2f}"
    if points == "0.00":
        text = f"equal to {rival}"
    else:
        text = f"{points} points {'above' if gain.mean > 0 else 'below'} {rival}"
    if gain.n == 1:
        return text
    return f"{text} (n = {gain.n}{_interval(gain)}: {gain.reading})"


def _interval(gain: Difference) -> str:
    if gain.interval is None:
        return ""
    low, high = (signed(100 * end) for end in gain.interval)
    return f", 95 % interval {low} to {high}"


def _notes(results: Results, compared: list[Comparison]) -> str:
    notes = []
    if any(c.difference.n == 1 for c in compared):
        notes.append(
            "One seed gives no interval, so a difference may be noise: set `seeds: [0, 1, 2]`."
        )
    examples = results.rows["test_examples"].max()
    if examples > 0:
        one = f"; one is {100 / examples:.2f} points" if results.metric.name == "accuracy" else ""
        notes.append(f"The test set has {examples:.0f} examples{one}.")
    notes.append(
        f"The best candidate is the one with the highest validation {results.metric.label}; its "
        "score is that on the test set. "
        "Differences are taken seed by seed; ± is their standard deviation. Each interval is for "
        "its own row and not corrected for the number of rows."
    )
    return " ".join(notes)


def _table(results: Results, compared: list[Comparison]) -> str:
    rows = []
    for c in compared:
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
    headers = ["soup", "compared with", "phase", "points", "better in seeds", "conclusion"]
    return table(headers, rows, names=3)
