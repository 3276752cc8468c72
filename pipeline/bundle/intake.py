"""Imports the results of a bundle's run: rows into docs/data/, the run into MLflow."""

import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.bundle import archive
from pipeline.errors import UserError
from pipeline.process import flag
from pipeline.storage.atomic_files import atomic_file
from pipeline.track.summary import flatten

RUNS, MEASURES = Path("docs/data/runs.csv"), Path("docs/data/card.csv")
FACTS = ("name", "settings", "commit", "golden", "card", "torch", "date")
# Rows with equal values here are the same result: of one experiment, code and card.
KEY = ["experiment", "golden", "commit", "card", "torch", "method", "phase", "seed"]
COLUMNS = {"method": "str", "phase": "int64", "seed": "int64"}  # with their types
DROPPED = ("model", "ood_about", "torch", "device")  # columns; FACTS has the last two
NAMES = re.compile(r"\w[\w.-]{0,199}")  # of keys and columns, which MLflow takes
# Settings that a row does not depend on: they say what else is run and measured.
IRRELEVANT = ("about", "seeds", "methods", "merge", "studies", "study", "evaluate", "paper")


def take_in(root: Path, files: Sequence[Path]) -> Iterator[str]:
    """Import each of ``files`` and yield a line about it; rows and runs are added only once.

    ``NAME-results.tar.gz`` adds its rows to docs/data/runs.csv, and one run to MLflow, tagged
    imported, with the networks of the files ``NAME-networks.*`` in the same folder.
    ``NAME.jsonl`` has measurements of benchmarks/card.py, one JSON object a line, for
    docs/data/card.csv.

    Raises:
        UserError: a file has another name, or is damaged.
    """
    for file in files:
        if file.name.endswith("-results.tar.gz"):
            yield _results(root, file)
        elif file.suffix == ".jsonl":
            yield _measurements(root, file)
        elif "-networks." not in file.name:
            raise UserError(
                f"{file} must be NAME-results.tar.gz, NAME-networks.tar.N or NAME.jsonl, "
                "as a bundle's run and benchmarks/card.py write them"
            )


class Facts(BaseModel):
    """The contents of run.json; the bundle's run adds further ones, such as the version of CUDA."""

    model_config = ConfigDict(extra="allow", strict=True)
    name: str
    settings: list[str]
    commit: str
    golden: str
    card: str
    torch: str
    date: str
    params: dict[str, Any]


class Run(NamedTuple):
    """The results of a run: its facts, its table, and the rows for docs/data/runs.csv."""

    facts: Facts
    table: pd.DataFrame
    rows: pd.DataFrame


def _results(root: Path, file: Path) -> str:
    with archive.results(file) as folder, archive.networks(file) as networks:
        run = _read(file, folder)
        added = append_rows(root / RUNS, run.rows, KEY)
        note = _track(root, file, run, folder / "reports", networks)
    return f"{file.name}: {added} of {len(run.rows)} rows are new in {RUNS}{note}"


def _read(file: Path, folder: Path) -> Run:
    """Read the contents of the archive ``file``, unpacked in ``folder``."""
    with _of_a_run(f"{file}: run.json"):
        facts = Facts.model_validate_json((folder / "run.json").read_bytes())
        values = facts.model_dump()
        names = {name for name, _ in flatten(facts.params, ".")} | values.keys()
        if wrong := [name for name in names if not NAMES.fullmatch(name)]:
            raise ValueError(f"the key {wrong[0]}")
    with _of_a_run(f"{file}: reports/results.csv"):
        table = pd.read_csv(folder / "reports" / "results.csv", dtype=COLUMNS)
        table = table[table.filter(like="test_").notna().any(axis=1)]
        if wrong := [name for name in table.columns if not NAMES.fullmatch(name)]:
            raise ValueError(f"the column {wrong[0]}")
        rows = table.drop(columns=[name for name in DROPPED if name in table])
        for name in reversed(FACTS):
            value = values[name]
            rows.insert(0, name, " ".join(value) if isinstance(value, list) else value)
        rows.insert(0, "experiment", experiment_id(facts.params))
        rows = as_text(rows, KEY)
    return Run(facts, table, rows)


@contextmanager
def _of_a_run(name: str) -> Iterator[None]:
    """Turn the errors of contents that no run has written into one sentence about ``name``."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{name} is missing: copy the archive again") from error
    except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            reason = f"{'.'.join(map(str, first['loc']))} {first['msg']}".strip()
        else:
            reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{name} is not as a run writes it ({reason}): copy it again") from error


def experiment_id(values: dict[str, Any]) -> str:
    """Return a hash of all settings but the seeds, methods and measurements.

    Rows of one method with equal hashes differ only in their seed.
    """
    relevant = {key: value for key, value in values.items() if key not in IRRELEVANT}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:12]


def _measurements(root: Path, file: Path) -> str:
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        if not all(isinstance(line, dict) and all(map(NAMES.fullmatch, line)) for line in lines):
            raise ValueError("one is not, or has a key that is no name")
        table = pd.DataFrame([{k: _cell(v) for k, v in line.items()} for line in lines])
        table = table.fillna("")
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist: correct its name") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{file}: every line must be a JSON object ({error}): copy it again"
        ) from error
    if not len(table):
        return f"{file.name}: it is empty"
    added = append_rows(root / MEASURES, table, list(table.columns))
    return f"{file.name}: {added} of {len(table)} measurements are new in {MEASURES}"


def _cell(value: Any) -> str:
    """Return a value as text, a whole number in one way only, so that equal rows are equal."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None else str(value)
    text.encode()
    return text


def as_text(rows: pd.DataFrame, key: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows as the text that a CSV file has, so that numbers keep their digits.

    Raises:
        ValueError, LookupError: they have no text in UTF-8, or lack a column of ``key``.
    """
    text = rows.to_csv(index=False)
    text.encode()
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    if missing := [name for name in key if name not in table]:
        raise LookupError(f"it lacks the column {missing[0]}")
    return table


def append_rows(path: Path, rows: pd.DataFrame, key: list[str]) -> int:
    """Add the ``rows`` whose ``key`` the table at ``path`` does not have; return how many."""
    old = pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else pd.DataFrame()
    known = set(map(tuple, old.reindex(columns=key, fill_value="").to_numpy().tolist()))
    fresh = rows[[tuple(row) not in known for row in rows[key].to_numpy().tolist()]]
    whole = pd.concat([old, fresh.drop_duplicates(key)]).fillna("")
    with atomic_file(path) as temporary:
        whole.to_csv(temporary, index=False, lineterminator="\n")
    return len(whole) - len(old)


def _track(root: Path, file: Path, run: Run, reports: Path, networks: Path | None) -> str:
    """Log one MLflow run, tagged imported, with the report and the networks, once for each file."""
    if not flag("SMS_MLFLOW"):
        return ""
    from pipeline.track.imported import log_imported  # noqa: PLC0415 - seconds to import

    records = run.table.astype(object).where(run.table.notna(), None).to_dict("records")
    rows = [{str(key): value for key, value in row.items()} for row in records]
    facts = run.facts.model_dump(exclude={"params"})
    tags = {name: str(value) for name, value in facts.items() if name != "commit"}
    tags |= {"mlflow.source.git.commit": facts["commit"], "digest": _digest(file)}
    new = log_imported(root, facts["name"], tags, run.facts.params, (reports, rows), networks)
    return ", and a run in MLflow" if new else "; MLflow has it"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
