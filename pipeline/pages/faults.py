"""Tables of the trials of tests/faults and tests/ray_faults, and of the soak, from docs/data/."""

from collections.abc import Callable
from pathlib import Path

from pipeline.pages.stored import Row
from pipeline.pages.stored import rows as rows_of
from pipeline.report.tables.markdown import table

HERE, ON_RAY = Path("docs/data/faults.csv"), Path("docs/data/ray_faults.csv")
SOAK = Path("docs/data/soak.csv")
GOOD, MENDED = "as undisturbed", "as undisturbed, after `verify`"


def by_kind(root: Path) -> str:
    """Return the number of trials and outcomes of each kind of fault, and of all."""
    rows = rows_of(root / HERE)
    kinds = sorted({row["kind"] for row in rows})
    lines = [_line(kind, [row for row in rows if row["kind"] == kind]) for kind in kinds]
    headers = ["fault", "trials", "of which hit the run", "as undisturbed", "after `verify`"]
    return table([*headers, "otherwise", "dates"], [*lines, _line("all", rows)])


def _line(name: str, rows: list[Row]) -> list[str]:
    outcomes = [row["outcome"] for row in rows]
    dates = sorted({row["date"] for row in rows})
    good, mended = outcomes.count(GOOD), outcomes.count(MENDED)
    hit = sum(row["reached"] == "yes" for row in rows)
    numbers = (len(rows), hit, good, mended, len(rows) - good - mended)
    return [name, *map(str, numbers), " to ".join(dict.fromkeys((dates[0], dates[-1])))]


def on_ray(root: Path) -> str:
    """Return the trials of tests/ray_faults by fault, in numbers."""
    by_fault: dict[str, list[Row]] = {}
    for row in rows_of(root / ON_RAY):
        by_fault.setdefault(row["fault"], []).append(row)
    lines = []
    for fault, trials in sorted(by_fault.items()):
        unseen = sum(row["project's folder"] == "not seen" for row in trials)
        again = sum(int(row["starts again"]) for row in trials)
        good = sum(row["end"] == "serial lock" for row in trials)
        drivers = sorted({row["drivers"] for row in trials})
        lines.append([fault, str(len(trials)), str(unseen), str(again), " or ".join(drivers)])
        lines[-1].append(f"{good} of {len(trials)}")
    headers = ["fault", "trials", "folder not seen by b", "starts again", "drivers a trial"]
    return table([*headers, "serial lock"], lines)


def soak(root: Path) -> str:
    """Return the state of the soak's repository after each part of the experiments."""
    columns = {
        "experiments": "experiments",
        "interrupted": "of which interrupted",
        "advised": "`verify` needed",
        "stages": "stages that ran",
        "experiment core s": "core s of 9 stages",
        "no-op core s": "core s of a no-op",
        "peak MB": "largest process (MB)",
        "open files": "its open files",
        "processes left": "processes left",
        "cache MB": "cache (MB)",
        "kept by gc MB": "kept by `dvc gc` (MB)",
        ".dvc/tmp files": "files in .dvc/tmp",
        "MLflow MB": "mlflow.db (MB)",
        "problems": "problems",
    }
    lines = [[row[name] for name in columns] for row in rows_of(root / SOAK)]
    return table(list(columns.values()), lines, names=0)


TABLES: dict[str, Callable[[Path], str]] = {
    "faults": by_kind,
    "ray_faults": on_ray,
    "soak": soak,
}
