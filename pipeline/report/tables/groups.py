"""The tables of groups: worst and mean score per set, and each group's score in small sets."""

import pandas as pd

from pipeline.report.labels import label, percent
from pipeline.report.results import Results
from pipeline.report.statistics import spread
from pipeline.report.tables.markdown import number, table

TABLE_COLUMNS = 6  # a set of at most so many groups gets a table with a column a group


def section(results: Results) -> str:
    """Return the tables of every set of groups."""
    groups = results.at_end("groups")
    parts = []
    for name in dict.fromkeys(groups["set"]):
        rows = groups[groups["set"] == name]
        parts.append(_worst_and_mean(results, rows, name))
        if rows["group"].nunique() <= TABLE_COLUMNS:
            parts.append(_each_group(results, rows, name))
    if not parts:
        return "Groups were not evaluated.\n"
    method = "Wilson" if results.metric.name == "accuracy" else "bootstrap over images"
    note = (
        "All of the test split. In brackets is the 95 % interval of one network's score over the "
        f"images of the group ({method}); for several seeds, the mean of their intervals.\n"
    )
    return "\n".join([*parts, note])


def _worst_and_mean(results: Results, groups: pd.DataFrame, name: str) -> str:
    """Return a row per method with the score of its worst group and the mean over the groups."""
    n = len(results.params.seeds)
    lines = []
    for method in results.methods:
        rows = groups[groups["method"] == method]
        if rows.empty:
            continue
        worst = rows.loc[rows.groupby("seed")["score"].idxmin()]
        names = set(worst["group"])
        lines.append(
            [
                label(method, results.params.m),
                names.pop() if len(names) == 1 else "differs by seed",
                f"{worst['n'].mean():.0f}",
                number(spread(worst["score"].tolist()), n) + _interval(worst),
                number(spread(rows.groupby("seed")["score"].mean().tolist()), n),
            ]
        )
    headers = [
        *(f"by {name}", "worst group", "its images"),
        *(f"{which} {results.metric.group} (%)" for which in ("worst", "mean")),
    ]
    return table(headers, lines, names=2)


def _each_group(results: Results, groups: pd.DataFrame, name: str) -> str:
    """Return a row per method with the score of every group of a set, the rarest first."""
    rarest = groups.drop_duplicates("group").sort_values(["n", "group"])
    sizes = dict(zip(rarest["group"], rarest["n"], strict=True))
    n = len(results.params.seeds)
    lines = []
    for method in results.methods:
        rows = groups[groups["method"] == method]
        by_group = [rows[rows["group"] == group] for group in sizes]
        cells = [number(spread(g["score"].tolist()), n) + _interval(g) for g in by_group]
        if len(rows):
            lines.append([label(method, results.params.m), *cells])
    headers = [f"{group}, {size} images" for group, size in sizes.items()]
    return table([f"{results.metric.group} (%) by {name}", *headers], lines)


def _interval(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    return f" ({percent(rows['low'].mean(), 1)} to {percent(rows['high'].mean(), 1)})"
