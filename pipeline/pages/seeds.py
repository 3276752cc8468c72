"""Scores by seed in stored rows, and the soup minus its rivals in points."""

import pandas as pd

from pipeline.report.labels import label
from pipeline.report.statistics import Difference, difference
from pipeline.report.tables.markdown import signed

SOUP, BEST_CANDIDATE = "sms_uniform", "best_candidate"
LABELS = {
    BEST_CANDIDATE: "its best candidate",
    "imp_mx": "IMP, m times longer",
    "imp_phases": "IMP in m times the phases",
}
NOTHING = "Not measured yet.\n"
Scores = dict[tuple[str, int], dict[int, float]]  # method, phase -> seed -> test score


def newest(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose golden numbers are those of the last one."""
    chosen: pd.DataFrame = rows[rows["golden"] == rows["golden"].iloc[-1]]
    return chosen


def scores(rows: pd.DataFrame) -> Scores:
    """Return the test scores, and those of the soup's best candidate as a method of its own."""
    by_method: Scores = {}
    for row in rows.to_dict("records"):
        method, phase, seed = str(row["method"]), int(row["phase"]), int(row["seed"])
        by_method.setdefault((method, phase), {})[seed] = float(row["test_score"])
        best = row.get("best_candidate_test_score")
        if method == SOUP and pd.notna(best):
            by_method.setdefault((BEST_CANDIDATE, phase), {})[seed] = float(best)
    return by_method


def soup_minus(values: Scores, method: str, phase: int) -> Difference | None:
    """Return SMS uniform minus ``method`` after ``phase``, paired by seed; None without a pair."""
    return difference(values.get((SOUP, phase), {}), values.get((method, phase), {}))


def points(gain: Difference | None) -> str:
    """Return a difference in points with its 95 % interval, bold if the interval excludes 0."""
    if gain is None:
        return ""
    text = signed(100 * gain.mean)
    if gain.interval is None:
        return text
    low, high = (f"{100 * end:+.2f}" for end in gain.interval)
    text += f" ({low} to {high})"
    return f"**{text}**" if gain.reading in {"better", "worse"} else text


def name(method: str) -> str:
    """Return a method's name for the pages, which name no m."""
    return LABELS.get(method) or label(method, 0)
