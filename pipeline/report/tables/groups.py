"""The groups of results.md: whom each network serves worst, and of few groups each one's score."""

import pandas as pd

from pipeline.report.labels import label, percent
from pipeline.report.results import Results
from pipeline.report.statistics import spread
from pipeline.report.tables.markdown import number, table

FEW = 6  # groups that a table has room for, a column each


def section(results: Results) -> str:
    """Return worst and mean score for every set of groups, and of few groups each one's."""
    n = len(results.params.seeds)
    groups = results.at_end("groups")
    parts = []
    for name in dict.fromkeys(groups["set"]):
        rows = []
        for method in results.methods:
            own = groups[(groups["set"] == name) & (groups["method"] == method)]
            if own.empty:
                continue
            worst = own.loc[own.groupby("seed")["score"].idxmin()]
            places = set(worst["group"])
            rows.append(
                [
                    label(method, results.params.m),
                    places.pop() if len(places) == 1 else "differs by seed",
                    f"{worst['n'].mean():.0f}",
                    number(spread(worst["score"].tolist()), n) + _interval(worst),
                    number(spread(own.groupby("seed")["score"].mean().tolist()), n),
                ]
            )
        headers = [
            *(f"by {name}", "worst group", "its images"),
            *(f"{which} {results.metric.group} (%)" for which in ("worst", "mean")),
        ]
        parts.append(table(headers, rows, names=2))
        if groups.loc[groups["set"] == name, "group"].nunique() <= FEW:
            parts.append(_each_group(results, groups[groups["set"] == name], name))
    if parts:
        how = "Wilson" if results.metric.name == "accuracy" else "bootstrap over images"
        parts.append(
            "All of the test split. In brackets the 95 % interval that so few images leave for one "
            f"network ({how}); of several seeds it is the mean.\n"
        )
    return "\n".join(parts) or "Groups were not evaluated.\n"


def _each_group(results: Results, rows: pd.DataFrame, name: str) -> str:
    """Return a line a method with the score of every group of a set, the rarest first."""
    rarest = rows.drop_duplicates("group").sort_values(["n", "group"])
    sizes = dict(zip(rarest["group"], rarest["n"], strict=True))
    lines = []
    for method in results.methods:
        own = rows[rows["method"] == method]
        by_group = {group: own[own["group"] == group] for group in sizes}
        cells = [
            number(spread(of["score"].tolist()), len(results.params.seeds)) + _interval(of)
            for of in by_group.values()
        ]
        if len(own):
            lines.append([label(method, results.params.m), *cells])
    headers = [f"{group}, {n} images" for group, n in sizes.items()]
    return table([f"{results.metric.group} (%) by {name}", *headers], lines)


def _interval(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    return f" ({percent(rows['low'].mean(), 1)} to {percent(rows['high'].mean(), 1)})"
