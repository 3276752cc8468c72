"""Recalls by group, errors against the dense network, SMS minus the others, and Table 15."""

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import shift
from pipeline.report.labels import label, percent, sparsity
from pipeline.report.paper import table_15
from pipeline.report.statistics import Spread, difference, spread
from pipeline.report.studies.base import Study
from pipeline.report.tables import subgroups
from pipeline.report.tables.markdown import NONE, gained, number, table
from pipeline.report.tables.subgroups import OVERALL, ROLES, order, places

INTERVALS = """\
In brackets the 95 % interval that the group's images leave for one network, averaged over the
seeds (Wilson's; of a mean of groups or classes, Zou and Donner's from theirs; of a change, Agresti
and Min's for paired shares). It is not the spread over the seeds.
"""


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row a measure, network and seed."""
    return subgroups.tabulate(study)


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw how many errors of each group are new and how many were mended."""
    return shift.draw(study, rows)


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return all measures of the test split, errors, differences, training recalls, Table 15."""
    if rows.empty:
        return "No network was measured.\n"
    groups = order(rows)
    headers = [f"{group} ({n:,})" for group, n in groups.items()]
    measured = {("test_recall", group): name for group, name in zip(groups, headers, strict=True)}
    overall = {(f"test_{measure}", ""): name for measure, name in OVERALL.items()}
    parts = {
        "Recall by group, test split": _section(study, rows, measured),
        "All test images": _section(study, rows, overall),
        "Errors against the dense network, test split": _shifts(study, rows),
        "SMS minus the others, test split": _differences(study, rows, overall | measured),
        "Recall by group, training split": _training(study, rows),
        "Beside the paper's Table 15": table_15.section(study, rows),
    }
    page = "".join(f"## {title}\n\n{body}\n" for title, body in parts.items() if body)
    return f"{INTERVALS}\n{page.rstrip()}\n"


def _section(study: Study, rows: pd.DataFrame, columns: dict[tuple[str, str], str]) -> str:
    """Return a line a network with mean, spread and interval of each measure."""
    lines = []
    for at in places(study, rows):
        own = _at(rows, at)
        lines.append([*_name(study, at), *(_cell(study, own, *which) for which in columns)])
    return table(["sparsity", "", *columns.values()], lines, 2)


def _shifts(study: Study, rows: pd.DataFrame) -> str:
    lines = []
    for at in places(study, rows):
        own = _at(rows, at)
        for group, n in order(rows).items() if at[1] != "dense" and at[2] == "model" else ():
            counts = [_over(own, f"test_{name}", group) for name in ("lost", "gained")]
            shown = [number(one, study.seeds, scale=1, digits=1) for one in counts]
            change = _cell(study, own, "test_error_change", group)
            lines.append([*_name(study, at), group, f"{n:,}", *shown, change])
    headers = ["sparsity", "", "group", "images", "newly wrong", "newly right"]
    return table([*headers, "change of the error rate (points)"], lines, 3)


def _differences(study: Study, rows: pd.DataFrame, columns: dict[tuple[str, str], str]) -> str:
    """Return every soup minus its best candidate and minus each method without candidates."""
    lines = []
    found = places(study, rows)
    for s, soup, role in found:
        if soup not in study.soups or role != "model":
            continue
        rivals = [at for at in found if at[0] == s and at[1] not in study.soups]
        for rival in [*rivals, (s, soup, "best_candidate")]:
            both = [_at(rows, at) for at in ((s, soup, role), rival)]
            cells = [_gain(study, *(_seeds(own, *which) for own in both)) for which in columns]
            names = [label(soup, study.params.m), _name(study, rival)[1]]
            lines.append([sparsity(s), *names, *cells])
    if not lines:
        return ""
    said = "Points, seed by seed. Better or worse: the 95 % interval over the seeds leaves 0 out.\n"
    return f"{said}\n" + table(["sparsity", "", "against", *columns.values()], lines, 3)


def _training(study: Study, rows: pd.DataFrame) -> str:
    own = rows[rows["measure"] == "train_recall"].drop_duplicates("group")
    sizes = {str(group): int(n) for group, n in zip(own["group"], own["n"], strict=True)}
    names = {("train_recall", g): f"{g} ({sizes[g]:,})" for g in order(rows) if g in sizes}
    overall = {("train_accuracy", ""): "top-1 (%)", ("train_group_mean", ""): "mean of groups (%)"}
    models = rows[rows["role"] == "model"]
    return _section(study, models, overall | names) if names else ""


def _at(rows: pd.DataFrame, at: tuple[float, str, str]) -> pd.DataFrame:
    same = (rows["sparsity"] == at[0]) & (rows["method"] == at[1]) & (rows["role"] == at[2])
    return rows[same]


def _name(study: Study, at: tuple[float, str, str]) -> list[str]:
    return [sparsity(at[0]) if at[0] else NONE, label(at[1], study.params.m) + ROLES[at[2]]]


def _seeds(rows: pd.DataFrame, measure: str, group: str) -> dict[int, float]:
    own = rows[(rows["measure"] == measure) & (rows["group"] == group)]
    return dict(zip(own["seed"], own["value"], strict=True))


def _over(rows: pd.DataFrame, measure: str, group: str) -> Spread | None:
    return spread(list(_seeds(rows, measure, group).values()))


def _cell(study: Study, rows: pd.DataFrame, measure: str, group: str) -> str:
    own = rows[(rows["measure"] == measure) & (rows["group"] == group)]
    shown = gained if measure == "test_error_change" else number
    text = shown(_over(rows, measure, group), study.seeds)
    ends = own[["low", "high"]].mean()
    return f"{text} ({' to '.join(percent(end, 1) for end in ends)})" if len(own) else text


def _gain(study: Study, ours: dict[int, float], theirs: dict[int, float]) -> str:
    found = difference(ours, theirs)
    if found is None:
        return NONE
    text = gained(Spread(found.n, found.mean, found.std), study.seeds)
    return f"{text} ({found.reading})" if found.reading in {"better", "worse"} else text
