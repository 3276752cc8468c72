"""Study subgroups: recalls by group, changes from the dense network, SMS compared, Table 15."""

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import error_changes
from pipeline.report.labels import label, percent, sparsity
from pipeline.report.paper import table_15
from pipeline.report.statistics import Spread, difference, spread
from pipeline.report.studies import subgroup_table
from pipeline.report.studies.base import Study
from pipeline.report.studies.subgroup_table import OVERALL, ROLES, group_sizes, networks
from pipeline.report.tables.markdown import NONE, gain, number, table

INTERVALS = """\
In brackets is the 95 % interval of one network over the images of the group, averaged over the
seeds (Wilson's; for a mean of groups or classes, Zou and Donner's; for a change, Agresti and Min's
for paired shares). It is not the spread over the seeds.
"""

Place = tuple[float, str, str]  # sparsity, method, role
Columns = dict[tuple[str, str], str]  # measure and group -> header


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per measure, network and seed."""
    return subgroup_table.tabulate(study)


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the newly wrong and newly right examples of each group."""
    pruned = rows[(rows["role"] == "model") & (rows["method"] != "dense")]
    changes = ["test_lost", "test_gained", "test_error_change"]
    methods = sorted(set(pruned["method"]), key=lambda method: (method in study.soups, method))
    shown = pruned[pruned["measure"].isin(changes)]
    return error_changes.draw(shown, group_sizes(rows), methods, study.params)


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return all measures of the test split, errors, differences, training recalls, Table 15."""
    if rows.empty:
        return "No network was measured.\n"
    groups = group_sizes(rows)
    recalls: Columns = {("test_recall", group): f"{group} ({n:,})" for group, n in groups.items()}
    overall: Columns = {(f"test_{measure}", ""): name for measure, name in OVERALL.items()}
    parts = {
        "Recall by group, test split": _section(study, rows, recalls),
        "All test images": _section(study, rows, overall),
        "Errors compared with the dense network, test split": _error_changes(study, rows),
        "SMS minus the others, test split": _differences(study, rows, overall | recalls),
        "Recall by group, training split": _training(study, rows),
        "Comparison with the paper's Table 15": table_15.section(study.params, rows),
    }
    page = "".join(f"## {title}\n\n{body}\n" for title, body in parts.items() if body)
    return f"{INTERVALS}\n{page.rstrip()}\n"


def _section(study: Study, rows: pd.DataFrame, columns: Columns) -> str:
    """Return a line per network with mean, spread and interval of each measure."""
    lines = []
    for place in networks(study, rows):
        network = _at(rows, place)
        cells = (_cell(study, network, *column) for column in columns)
        lines.append([*_name(study, place), *cells])
    return table(["sparsity", "", *columns.values()], lines, 2)


def _error_changes(study: Study, rows: pd.DataFrame) -> str:
    """Return a line per pruned network and group: newly wrong, newly right, and the change."""
    lines = []
    for place in networks(study, rows):
        _, method, role = place
        if method == "dense" or role != "model":
            continue
        network = _at(rows, place)
        for group, n in group_sizes(rows).items():
            counts = [_over_seeds(network, f"test_{key}", group) for key in ("lost", "gained")]
            cells = [number(count, study.seeds, scale=1, digits=1) for count in counts]
            change = _cell(study, network, "test_error_change", group)
            lines.append([*_name(study, place), group, f"{n:,}", *cells, change])
    headers = ["sparsity", "", "group", "images", "newly wrong", "newly right"]
    return table([*headers, "change of the error rate (points)"], lines, 3)


def _differences(study: Study, rows: pd.DataFrame, columns: Columns) -> str:
    """Return every soup minus its best candidate and minus each method without candidates."""
    lines = []
    places = networks(study, rows)
    for s, soup, role in places:
        if soup not in study.soups or role != "model":
            continue
        rivals = [place for place in places if place[0] == s and place[1] not in study.soups]
        for rival in [*rivals, (s, soup, "best_candidate")]:
            ours, theirs = _at(rows, (s, soup, role)), _at(rows, rival)
            cells = [
                _gain(study, _by_seed(ours, *column), _by_seed(theirs, *column))
                for column in columns
            ]
            names = [label(soup, study.params.m), _name(study, rival)[1]]
            lines.append([sparsity(s), *names, *cells])
    if not lines:
        return ""
    note = "Points, seed by seed; better or worse: the 95 % interval over the seeds excludes 0.\n"
    return f"{note}\n" + table(["sparsity", "", "compared with", *columns.values()], lines, 3)


def _training(study: Study, rows: pd.DataFrame) -> str:
    sizes = group_sizes(rows, "train_recall")
    recalls = {
        ("train_recall", group): f"{group} ({sizes[group]:,})"
        for group in group_sizes(rows)
        if group in sizes
    }
    overall = {("train_accuracy", ""): "top-1 (%)", ("train_group_mean", ""): "mean of groups (%)"}
    models = rows[rows["role"] == "model"]
    return _section(study, models, overall | recalls) if recalls else ""


def _at(rows: pd.DataFrame, place: Place) -> pd.DataFrame:
    s, method, role = place
    same_method = (rows["method"] == method) & (rows["role"] == role)
    return rows[same_method & (rows["sparsity"] == s)]


def _name(study: Study, place: Place) -> list[str]:
    s, method, role = place
    return [sparsity(s) if s else NONE, label(method, study.params.m) + ROLES[role]]


def _by_seed(rows: pd.DataFrame, measure: str, group: str) -> dict[int, float]:
    values = rows[(rows["measure"] == measure) & (rows["group"] == group)]
    return dict(zip(values["seed"], values["value"], strict=True))


def _over_seeds(rows: pd.DataFrame, measure: str, group: str) -> Spread | None:
    return spread(list(_by_seed(rows, measure, group).values()))


def _cell(study: Study, rows: pd.DataFrame, measure: str, group: str) -> str:
    values = rows[(rows["measure"] == measure) & (rows["group"] == group)]
    write = gain if measure == "test_error_change" else number
    text = write(_over_seeds(rows, measure, group), study.seeds)
    ends = values[["low", "high"]].mean()
    return f"{text} ({' to '.join(percent(end, 1) for end in ends)})" if len(values) else text


def _gain(study: Study, ours: dict[int, float], theirs: dict[int, float]) -> str:
    change = difference(ours, theirs)
    if change is None:
        return NONE
    text = gain(Spread(change.n, change.mean, change.std), study.seeds)
    return f"{text} ({change.reading})" if change.reading in {"better", "worse"} else text
