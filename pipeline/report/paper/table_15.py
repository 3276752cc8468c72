"""Compares Celeb-A's recalls by group with the paper's Table 15, at equal sparsities."""

from collections.abc import Iterator

import pandas as pd

from pipeline.config.experiment import Experiment
from pipeline.plan.declared import declared
from pipeline.report.labels import epochs, label, sparsity
from pipeline.report.paper.lookup import departures, paper_table
from pipeline.report.statistics import spread
from pipeline.report.tables.markdown import NONE, number, table

TABLE = "subgroup_recall"
_DENSE = "Pretrained"  # the dense network's name in the table
_COLUMNS = {  # of the table -> our measure and group
    "top1": ("accuracy", ""),
    "balanced_accuracy": ("group_mean", ""),
    "recall_male_blond": ("recall", "male blond"),
    "recall_male_nonblond": ("recall", "male non-blond"),
    "recall_female_blond": ("recall", "female blond"),
    "recall_female_nonblond": ("recall", "female non-blond"),
}

NOTE = """\
The paper calls its numbers test accuracies, but they look like those of training images: on the
official test images ordinary training reaches about 95 % top-1, and less than one half of the blond
men (Sagawa et al., 2020, Table 1).
"""


def section(params: Experiment, rows: pd.DataFrame) -> str:
    """Return our rows and the paper's at each sparsity that both have; "" for other data.

    ``rows`` is the table of the study subgroups (`pipeline.report.studies.subgroup_table`).
    """
    paper = params.paper
    if paper is None or (paper.dataset, paper.arch) != ("Celeb-A", "ResNet-18"):
        return ""
    lines = list(_lines(params, rows, paper_table(TABLE)))
    if not lines:
        return ""
    headers = ["sparsity", "", "", "top-1 (%)", "mean of groups (%)"]
    names = [group for _, group in _COLUMNS.values() if group]
    reasons = different(params)
    note = f"Not the paper's experiment: {'; '.join(reasons)}.\n\n" if reasons else ""
    text = f"{note}{NOTE}Our numbers are therefore given for both splits.\n\n"
    return text + table([*headers, *names], lines, 3)


def different(params: Experiment) -> list[str]:
    """Return the settings in which this run differs from Table 15's experiment."""
    reasons = departures(params)
    retrain = params.retrain
    if (retrain.schedule, retrain.epochs) != ("ALLR", 20):
        ours = f"{retrain.schedule} with {epochs(retrain.epochs)}"
        reasons.append(f"retraining is by {ours}, not ALLR with 20")
    return reasons


def _lines(params: Experiment, rows: pd.DataFrame, theirs: pd.DataFrame) -> Iterator[list[str]]:
    printed_names = {m: declared(m).paper.get(TABLE) for m in map(str, rows["method"].unique())}
    methods = {printed: method for method, printed in printed_names.items() if printed}
    methods[_DENSE] = "dense"
    for percent in sorted(set(theirs["sparsity"])):
        for printed in (_DENSE, *sorted(set(theirs["method"]) - {_DENSE})):
            method = methods.get(printed)
            their_rows = theirs[(theirs["sparsity"] == percent) & (theirs["method"] == printed)]
            same = (rows["sparsity"] - percent / 100).abs() < 1e-6
            our_rows = rows[same & (rows["method"] == method) & (rows["role"] == "model")]
            if method is None or their_rows.empty or our_rows.empty:
                continue
            by_metric = their_rows.set_index("metric")
            numbers = [by_metric.loc[metric, ["mean", "std"]] for metric in _COLUMNS]
            name = [sparsity(percent / 100) if percent else NONE, label(method, params.m)]
            for split, source in (("test", "ours, test"), ("train", "ours, training")):
                cells = (_ours(params, our_rows, split, *c) for c in _COLUMNS.values())
                yield [*name, source, *cells]
            yield [*name, "paper", *(f"{mean:.2f} ± {std:.2f}" for mean, std in numbers)]


def _ours(params: Experiment, rows: pd.DataFrame, split: str, measure: str, group: str) -> str:
    values = rows[(rows["measure"] == f"{split}_{measure}") & (rows["group"] == group)]["value"]
    return number(spread(values.tolist()), len(params.seeds))
