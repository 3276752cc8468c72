"""Study: the points of a study with the metrics of their stages, and tables of them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from pipeline.config.experiment import Experiment
from pipeline.plan.plan import Plan, StudyResult
from pipeline.report.labels import epochs
from pipeline.report.load import Artifacts, metric_of
from pipeline.report.metric import Metric
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
    """A point of the plan with the metrics of its stages; missing metrics are {}."""

    point: StudyResult
    model: dict[str, Any]
    candidates: list[dict[str, Any]]
    nodes: dict[str, dict[str, Any]]  # the metrics of the point's further stages, by role

    @property
    def key(self) -> dict[str, Any]:
        """The values that the study varies, method, phase and seed."""
        point = self.point
        place = {"method": point.method, "phase": point.phase, "seed": point.seed}
        return point.values | place


@dataclass(frozen=True)
class Study:
    """The points of a study in the order of the plan."""

    name: str
    about: str
    params: Experiment
    points: list[Measured]
    missing: list[str] = field(default_factory=list)
    metric: Metric = field(default_factory=Metric)

    @property
    def soups(self) -> set[str]:
        """The methods that merge candidates of one mask."""
        return {measured.point.method for measured in self.points if measured.point.is_soup}

    @property
    def seeds(self) -> int:
        """The number of planned seeds."""
        return len(self.params.seeds)


def read(plan: Plan, name: str, about: str, folder: Path, without: Collection[str] = ()) -> Study:
    """Return the study ``name`` of ``plan`` with its measurements in the artifacts of ``folder``.

    Stages in ``without`` are not read: their artifacts are out of date.
    """
    metric = metric_of(plan, folder, without)
    artifacts = Artifacts(folder, set(without), metric.rename_scores)
    points = [
        Measured(
            point=point,
            model=artifacts.metrics(point.model),
            candidates=[artifacts.metrics(candidate) for candidate in point.candidates],
            nodes={role: artifacts.metrics(node) for role, node in point.nodes.items()},
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
    return Study(name, about, plan.params, points, sorted(artifacts.missing & used), metric)


def points_table(study: Study, compare: Sequence[str] = ()) -> pd.DataFrame:
    """Return one row per point: its values, method, phase, seed, then `MEASURES` as fractions.

    ``compare`` names further columns, from the metrics of the point's compare stage. Missing
    numbers are NaN; so is the best candidate if any candidate is missing.
    """
    records = [_record(measured, compare) for measured in study.points]
    values = dict.fromkeys(key for measured in study.points for key in measured.point.values)
    return pd.DataFrame(records, columns=[*values, *KEY, *MEASURES, *compare])


def _record(measured: Measured, compare: Sequence[str]) -> dict[str, Any]:
    model, candidates = measured.model, measured.candidates
    record = measured.key | {key: model.get(key) for key in ("test_score", "val_score")}
    if candidates and all(candidates):
        best = max(candidates, key=lambda candidate: candidate["val_score"])
        record["best_candidate"] = best["test_score"]
        record["mean_candidate"] = fmean(candidate["test_score"] for candidate in candidates)
        if model:
            record["gain"] = model["test_score"] - best["test_score"]
    return record | {key: measured.nodes.get("compare", {}).get(key) for key in compare}


def over_seeds(rows: pd.DataFrame, measure: str) -> Spread | None:
    """Return mean, standard deviation and n of ``measure`` over those ``rows`` that have it."""
    return spread(rows[measure].dropna().astype(float).tolist())


def best(rows: pd.DataFrame, by: Sequence[str], over: Sequence[str]) -> pd.DataFrame:
    """Return, for each group of ``by``, the rows of its best configuration of ``over``.

    The best has the highest mean validation score over the seeds; of equals, it is the first. A
    configuration with fewer seeds than another is left out. The test score plays no part.
    """
    selected = []
    for _, group in groups(rows.dropna(subset=["val_score"]), *by):
        configurations = [configuration for _, configuration in groups(group, *over)]
        seeds = max(len(configuration) for configuration in configurations)
        complete = [one for one in configurations if len(one) == seeds]
        selected.append(max(complete, key=lambda one: float(one["val_score"].mean())))
    return pd.concat(selected) if selected else rows.iloc[:0]


def minus(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of ``first`` whose seeds ``second`` has, with ``points``, the difference.

    It is the test score of ``first`` minus that of ``second``; each has one row a seed.
    """
    both = first.merge(second, on="seed", suffixes=("", "_second"))
    both["points"] = both["test_score"] - both["test_score_second"]
    return both


def over_places(rows: pd.DataFrame, column: str, measure: str) -> dict[Any, Spread | None]:
    """Return `over_seeds` of ``measure`` for each value of ``column``."""
    return {values[column]: over_seeds(part, measure) for values, part in groups(rows, column)}


def groups(rows: pd.DataFrame, *by: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield each combination of values of ``by``, in order of appearance, and its rows."""
    for _, part in rows.groupby(list(by), sort=False):
        yield {column: part[column].iloc[0] for column in by}, part


def settings(rows: pd.DataFrame) -> str:
    """Return schedule and epochs of a configuration: ``ALLR, 10 epochs``."""
    return f"{rows['schedule'].iloc[0]}, {epochs(int(rows['epochs'].iloc[0]))}"
