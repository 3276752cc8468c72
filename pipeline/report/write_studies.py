"""A page, a table and a figure for every study: reports/studies/NAME.md, NAME.csv, figures/."""

import shutil
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import pandas as pd
from matplotlib.figure import Figure

from pipeline.plan.build import studies
from pipeline.plan.plan import Plan
from pipeline.report.figures import style
from pipeline.report.metric import capital
from pipeline.report.studies.base import Study, read
from pipeline.report.tables.markdown import not_run


class Pages(Protocol):
    """What a file of ``pipeline/report/studies`` offers."""

    def tabulate(self, study: Study) -> pd.DataFrame:
        """Return what was measured, one row a seed and setting."""

    def draw(self, study: Study, rows: pd.DataFrame) -> Figure:
        """Draw it."""

    def text(self, study: Study, rows: pd.DataFrame) -> str:
        """Return it as tables in Markdown, means over the seeds."""


def write_studies(plan: Plan, artifacts: Path, folder: Path, without: Collection[str] = ()) -> None:
    """Write what the studies of ``plan`` have left in ``artifacts``; drop those of other plans.

    As `pipeline.report.write.write`: what is missing is named, and equal artifacts give equal
    bytes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    about = studies() if plan.params.studies else {}
    for name in sorted(plan.params.studies):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        pages = cast("Pages", import_module(f"pipeline.report.studies.{name}"))
        study = read(plan, name, about[name], artifacts, without)
        rows = pages.tabulate(study)
        rows.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        with style.look():
            style.save(pages.draw(study, rows), folder / "figures" / f"{name}.png")
        page = _page(study, pages.text(study, rows))
        (folder / f"{name}.md").write_text(page, encoding="utf-8")


def _page(study: Study, text: str) -> str:
    p = study.params
    seeds = ", ".join(map(str, p.seeds))
    return (
        f"# Study: {study.name}\n\n{study.about}\n\n"
        f"Recipe {p.recipe}, network {p.network.name}, m = {p.m}, {p.prune.criterion} pruning, "
        f"{p.prune.allocation}; seeds {seeds} "
        f"({'so no spread' if study.seeds == 1 else 'mean ± standard deviation'}). "
        f"{capital(study.metric.plural)} in [{study.name}.csv]({study.name}.csv) are fractions.\n\n"
        f"![{study.about}](figures/{study.name}.png)\n\n{text}{_missing(study)}"
    )


def _missing(study: Study) -> str:
    if not study.missing:
        return ""
    names = ", ".join(f"`{name}`" for name in study.missing)
    return f"\n## Missing\n\n{not_run(len(study.missing))}: {names}.\n"
