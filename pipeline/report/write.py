"""Writes reports/: the page of results, its figures and CSV files, and the pages of studies."""

import shutil
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import pandas as pd
from matplotlib.figure import Figure

from pipeline import registry
from pipeline.plan.build import studies
from pipeline.plan.plan import Plan
from pipeline.report.figures import accuracy, candidates, corruptions, groups, layers, style
from pipeline.report.labels import pruning_rules
from pipeline.report.load import read
from pipeline.report.metric import capital
from pipeline.report.metrics_json import headline
from pipeline.report.page import page
from pipeline.report.paper import lookup
from pipeline.report.results import KEY, TABLES, Results
from pipeline.report.statistics import summary
from pipeline.report.studies.base import Study
from pipeline.report.studies.base import read as read_study
from pipeline.report.tables.made_by import with_makers
from pipeline.report.tables.markdown import not_run
from pipeline.run.provenance import provenance
from pipeline.storage.atomic_files import write_json

DRAWN = {
    "accuracy": accuracy.draw,
    "candidates": candidates.draw,
    "corruptions": corruptions.draw,
    "groups": groups.draw,
    "layers": layers.draw,
}

ALWAYS = set(TABLES) - {"filters"}  # filters.csv is written only where filters were removed


def write(
    plan: Plan, artifacts: Path, folder: Path, without: Collection[str] = ()
) -> dict[str, Any]:
    """Write the report on ``plan`` into ``folder`` and return the content of its metrics.json.

    ``artifacts`` is the folder of the stages' results. Missing stages are listed on the page, those
    in ``without`` (failed or skipped) included, and every file is written nevertheless. Equal
    artifacts give equal bytes.
    """
    plan = lookup.measured(plan, artifacts, without)
    results = read(plan, artifacts, without)
    results.rows = with_makers(results.rows, provenance(artifacts.parent))
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, table in _files(results).items():
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    with style.look():
        for name, draw in DRAWN.items():
            style.save(draw(results), folder / "figures" / f"{name}.png")
    (folder / "results.md").write_text(page(results), encoding="utf-8")
    write_studies(plan, artifacts, folder / "studies", without)
    metrics = headline(results)
    write_json(folder / "metrics.json", metrics)
    return metrics


def _files(results: Results) -> dict[str, pd.DataFrame]:
    """Return the tables by the names of their CSV files."""
    rows = results.rows
    return {
        "results": rows,
        "results_summary": summary(results),
        "accuracy": rows.dropna(subset=["test_score"])[
            [*KEY, "sparsity", "test_score", *rows.columns.intersection(results.metric.columns)]
        ],
        **{name: table for name, table in results.tables.items() if name in ALWAYS or len(table)},
    }


class StudyReport(Protocol):
    """The functions of a file of ``pipeline/report/studies``."""

    def tabulate(self, study: Study) -> pd.DataFrame:
        """Return the measurements, one row per seed and setting."""

    def draw(self, study: Study, rows: pd.DataFrame) -> Figure:
        """Return the figure."""

    def text(self, study: Study, rows: pd.DataFrame) -> str:
        """Return the tables in Markdown, means over the seeds."""


def write_studies(plan: Plan, artifacts: Path, folder: Path, without: Collection[str] = ()) -> None:
    """Write NAME.md, NAME.csv and figures/NAME.png of every study of ``plan`` into ``folder``.

    Files of other studies there are removed. Missing stages are treated as by `write`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    about = studies() if plan.params.studies else {}
    for name in sorted(plan.params.studies):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        report = cast("StudyReport", import_module(f"pipeline.report.studies.{name}"))
        study = read_study(plan, name, about[name], artifacts, without)
        rows = report.tabulate(study)
        rows.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        with style.look():
            style.save(report.draw(study, rows), folder / "figures" / f"{name}.png")
        text = _study_page(study, report.text(study, rows))
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def _study_page(study: Study, text: str) -> str:
    p = study.params
    network = registry.label("models", p.network.name)
    criterion, allocation = pruning_rules(p.prune)
    seeds = ", ".join(map(str, p.seeds))
    varied = any("allocation" in measured.point.values for measured in study.points)
    sizes = {measured.point.values.get("m", p.m) for measured in study.points}
    return (
        f"# Study: {study.name}\n\n{study.about}\n\n"
        f"Recipe {p.recipe_name}, network {network}, "
        f"{'several m' if len(sizes) > 1 else f'm = {min(sizes)}'}, {criterion} pruning, "
        f"{'several allocations' if varied else allocation}; seeds {seeds} "
        f"({'one seed, so no deviation' if study.seeds == 1 else 'mean ± standard deviation'}). "
        f"{capital(study.metric.plural)} in [{study.name}.csv]({study.name}.csv) are fractions.\n\n"
        f"![{study.about}](figures/{study.name}.png)\n\n{text}{_missing(study)}"
    )


def _missing(study: Study) -> str:
    if not study.missing:
        return ""
    names = ", ".join(f"`{name}`" for name in study.missing)
    return f"\n## Missing\n\n{not_run(len(study.missing))}: {names}.\n"
