"""Table 15 of the paper, Celeb-A by group, beside the same sparsities of ours."""

from collections.abc import Iterator
from functools import cache

import pandas as pd

from pipeline.config.experiment import Experiment
from pipeline.report.labels import epochs, label, sparsity
from pipeline.report.paper.lookup import FOLDER, departures
from pipeline.report.statistics import spread
from pipeline.report.studies.base import Study
from pipeline.report.tables.markdown import NONE, number, table

_METHODS = {"dense": "Pretrained", "imp": "IMP", "sms_uniform": "SMS"}  # as the table calls them
_COLUMNS = {  # of the table -> measure and group of ours
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


@cache
def _printed() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "subgroup_recall.csv")


def section(study: Study, rows: pd.DataFrame) -> str:
    """Return the paper's row under ours wherever the sparsity is the same; "" for other data."""
    paper = study.params.paper
    theirs = _printed()
    if paper is None or (paper.dataset, paper.arch) != ("Celeb-A", "ResNet-18"):
        return ""
    lines = list(_lines(study, rows, theirs))
    if not lines:
        return ""
    headers = ["sparsity", "", "", "top-1 (%)", "mean of groups (%)"]
    names = [group for _, group in _COLUMNS.values() if group]
    other = different(study.params)
    note = f"Not the paper's experiment: {'; '.join(other)}.\n\n" if other else ""
    return f"{note}{NOTE}So ours stand here from both splits.\n\n" + table(
        [*headers, *names], lines, 3
    )


def different(params: Experiment) -> list[str]:
    """Return what makes this run another experiment than Table 15's."""
    found = departures(params)
    if (params.retrain.schedule, params.retrain.epochs) != ("ALLR", 20):
        own = f"{params.retrain.schedule} with {epochs(params.retrain.epochs)}"
        found.append(f"retraining is by {own}, not ALLR with 20")
    return found


def _lines(study: Study, rows: pd.DataFrame, theirs: pd.DataFrame) -> Iterator[list[str]]:
    for place in sorted(set(theirs["sparsity"])):
        for method, printed in _METHODS.items():
            here = theirs[(theirs["sparsity"] == place) & (theirs["method"] == printed)]
            same = (rows["sparsity"] - place / 100).abs() < 1e-6
            own = rows[same & (rows["method"] == method) & (rows["role"] == "model")]
            if here.empty or own.empty:
                continue
            by_metric = here.set_index("metric")
            numbers = [by_metric.loc[metric, ["mean", "std"]] for metric in _COLUMNS]
            name = [sparsity(place / 100) if place else NONE, label(method, study.params.m)]
            for part, source in (("test", "ours, test"), ("train", "ours, training")):
                yield [*name, source, *(_ours(study, own, part, *c) for c in _COLUMNS.values())]
            yield [*name, "paper", *(f"{mean:.2f} ± {std:.2f}" for mean, std in numbers)]


def _ours(study: Study, own: pd.DataFrame, part: str, measure: str, group: str) -> str:
    found = own[(own["measure"] == f"{part}_{measure}") & (own["group"] == group)]
    return number(spread(found["value"].tolist()), study.seeds)
