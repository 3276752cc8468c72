"""What a study has measured: its points with the metrics of their stages, and as one tidy table."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from pipeline.config.experiment import Experiment
from pipeline.plan.plan import Plan, StudyResult
from pipeline.report import metric as metrics
from pipeline.report.labels import epochs
from pipeline.report.metric import Metric
from pipeline.report.source import Source
from pipeline.report.statistics import Spread, spread

KEY = ["method", "phase", "seed"]
MEASURES = [
    "test_score",
    "val_score",
    "best_candidate",  # test score of the candidate with the highest validation score
    "mean_candidate",
    "gain",  # test_score minus best_candidate
]


@dataclass(frozen=True)
class Measured:
    """A point with what its stages have left; what is missing is empty."""

    point: StudyResult
    model: dict[str, Any]
    candidates: list[dict[str, Any]]
    nodes: dict[str, dict[str, Any]]  # what each of the point's further stages measured


@dataclass(frozen=True)
class Study:
    """A study's points in the order in which they were planned."""

    name: str
    about: str
    params: Experiment
    points: list[Measured]
    missing: list[str] = field(default_factory=list)
    metric: Metric = field(default_factory=Metric)

    @property
    def soups(self) -> set[str]:
        """The methods whose points are merges of candidates that share one mask."""
        return {measured.point.method for measured in self.points if measured.point.is_soup}

    @property
    def seeds(self) -> int:
        """How many seeds were asked for."""
        return len(self.params.seeds)


def read(
    plan: Plan, name: str, about: str, artifacts: Path, without: Collection[str] = ()
) -> Study:
    """Read everything that the study ``name`` of ``plan`` has left in ``artifacts``."""
    metric = metrics.of(plan, artifacts, without)
    source = Source(artifacts, set(without), metric.scores)
    points = [
        Measured(
            point=point,
            model=source.metrics(point.model),
            candidates=[source.metrics(one) for one in point.candidates],
            nodes={role: source.metrics(node) for role, node in point.nodes.items()},
        )
        for point in plan.points
        if point.study == name
    ]
    used = {
        node
        for measured in points
        for node in (
            measured.point.model,
            *measured.point.candidates,
            *measured.point.nodes.values(),
        )
    }
    return Study(name, about, plan.params, points, sorted(source.missing & used), metric)


def points_table(study: Study, compare: Sequence[str] = ()) -> pd.DataFrame:
    """Return one row a point: its values, method, phase, seed, then `MEASURES` as fractions.

    ``compare`` names numbers of the point's compare stage that become columns too. What is
    missing is NaN, a best candidate also where some of the candidates are missing.
    """
    records = [_record(measured, compare) for measured in study.points]
    values = dict.fromkeys(key for measured in study.points for key in measured.point.values)
    return pd.DataFrame(records, columns=[*values, *KEY, *MEASURES, *compare])


def _record(measured: Measured, compare: Sequence[str]) -> dict[str, Any]:
    point, model, candidates = measured.point, measured.model, measured.candidates
    record = {
        **point.values,
        "method": point.method,
        "phase": point.phase,
        "seed": point.seed,
        "test_score": model.get("test_score"),
        "val_score": model.get("val_score"),
    }
    if candidates and all(candidates):
        best = max(candidates, key=lambda one: one["val_score"])
        record["best_candidate"] = best["test_score"]
        record["mean_candidate"] = fmean(one["test_score"] for one in candidates)
        if model:
            record["gain"] = model["test_score"] - best["test_score"]
    return record | {key: measured.nodes.get("compare", {}).get(key) for key in compare}


def over_seeds(rows: pd.DataFrame, measure: str) -> Spread | None:
    """Return mean, standard deviation and n of ``measure`` over those ``rows`` that have it."""
    return spread(rows[measure].dropna().astype(float).tolist())


def best(rows: pd.DataFrame, by: Sequence[str], over: Sequence[str]) -> pd.DataFrame:
    """Return, for each group of ``by``, the rows of its best configuration of ``over``.

    The best has the highest mean validation score over the seeds, never test score; the
    first of equals. A configuration that lacks a seed which another has is left out.
    """
    chosen = []
    for _, group in groups(rows.dropna(subset=["val_score"]), *by):
        configurations = [one for _, one in groups(group, *over)]
        most = max(len(one) for one in configurations)
        whole = [one for one in configurations if len(one) == most]
        chosen.append(max(whole, key=lambda one: float(one["val_score"].mean())))
    return pd.concat(chosen) if chosen else rows.iloc[:0]


def over_places(rows: pd.DataFrame, column: str, measure: str) -> dict[Any, Spread | None]:
    """Return `over_seeds` of ``measure`` for each value of ``column``."""
    return {values[column]: over_seeds(own, measure) for values, own in groups(rows, column)}


def groups(rows: pd.DataFrame, *by: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield the values of ``by`` that occur together, in order of appearance, and their rows."""
    for _, own in rows.groupby(list(by), sort=False):
        yield {column: own[column].iloc[0] for column in by}, own


def settings(rows: pd.DataFrame) -> str:
    """Return schedule and epochs of a configuration: ``ALLR, 10 epochs``."""
    return f"{rows['schedule'].iloc[0]}, {epochs(int(rows['epochs'].iloc[0]))}"
