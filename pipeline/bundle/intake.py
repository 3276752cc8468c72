"""Imports the results of a bundle's run: rows into docs/data/, the run into MLflow."""

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import UserError
from pipeline.storage.atomic_files import atomic_file, read_json

RUNS, MEASURES = Path("docs/data/runs.csv"), Path("docs/data/card.csv")
FACTS = ("name", "settings", "commit", "golden", "card", "torch", "date")
# Rows with equal values here are the same result: of one experiment, code and card.
KEY = ["experiment", "golden", "commit", "card", "torch", "method", "phase", "seed"]
DROPPED = ("model", "ood_about")  # columns
# Settings that a row does not depend on: they say what else is run and measured.
IRRELEVANT = ("about", "seeds", "methods", "merge", "studies", "study", "evaluate", "paper")


def take_in(root: Path, files: Sequence[Path]) -> Iterator[str]:
    """Import each of ``files`` and yield a line about it; rows and runs are added only once.

    ``NAME-results.tar.gz`` adds its rows to docs/data/runs.csv, and one run to MLflow, tagged
    imported, with the networks of the files ``NAME-networks.tar.*`` in the same folder.
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
        elif "-networks.tar." not in file.name:
            raise UserError(
                f"{file} must be NAME-results.tar.gz, NAME-networks.tar.N or NAME.jsonl, "
                "as a bundle's run and benchmarks/card.py write them"
            )


def _results(root: Path, file: Path) -> str:
    with _unpacked(file) as folder:
        facts = read_json(folder / "run.json")
        table = pd.read_csv(folder / "reports" / "results.csv")
        table = table[table.filter(like="test_").notna().any(axis=1)]
        rows = table.drop(columns=[name for name in DROPPED if name in table])
        for name in reversed(FACTS):
            value = facts[name]
            rows.insert(0, name, " ".join(value) if isinstance(value, list) else value)
        rows.insert(0, "experiment", experiment_id(facts["params"]))
        added = append_rows(root / RUNS, rows, KEY)
        note = _track(root, file, folder, facts, table)
    return f"{file.name}: {added} of {len(rows)} rows are new in {RUNS}{note}"


def experiment_id(values: dict[str, Any]) -> str:
    """Return a hash of all settings but the seeds, methods and measurements.

    Rows of one method with equal hashes differ only in their seed.
    """
    relevant = {key: value for key, value in values.items() if key not in IRRELEVANT}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:12]


def _measurements(root: Path, file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        table = pd.DataFrame([json.loads(line) for line in lines])
    except ValueError as error:
        raise UserError(f"{file}: every line must be a JSON object ({error})") from error
    if not len(table):
        return f"{file.name}: it is empty"
    added = append_rows(root / MEASURES, table, list(table.columns))
    return f"{file.name}: {added} of {len(table)} measurements are new in {MEASURES}"


def append_rows(path: Path, rows: pd.DataFrame, key: list[str]) -> int:
    """Add those of ``rows`` whose ``key`` the table at ``path`` does not have; return how many."""
    # As text, so that the numbers in the file keep their digits.
    new = pd.read_csv(io.StringIO(rows.to_csv(index=False)), dtype=str, keep_default_na=False)
    old = pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else pd.DataFrame()
    known = set(map(tuple, old.reindex(columns=key, fill_value="").to_numpy().tolist()))
    fresh = new[[tuple(row) not in known for row in new[key].to_numpy().tolist()]]
    whole = pd.concat([old, fresh.drop_duplicates(key)]).fillna("")
    with atomic_file(path) as temporary:
        whole.to_csv(temporary, index=False, lineterminator="\n")
    return len(whole) - len(old)


def _track(root: Path, file: Path, folder: Path, facts: dict[str, Any], table: pd.DataFrame) -> str:
    """Log one MLflow run, tagged imported, with the report and the networks, once for each file."""
    if os.environ.get("SMS_MLFLOW") == "0":
        return ""
    from pipeline.track.imported import log_imported  # noqa: PLC0415 - seconds to import

    records = table.astype(object).where(table.notna(), None).to_dict("records")
    rows = [{str(key): value for key, value in row.items()} for row in records]
    params = facts.pop("params")
    tags = {name: str(value) for name, value in facts.items() if name != "commit"}
    tags |= {"mlflow.source.git.commit": facts["commit"], "digest": _digest(file)}
    with _networks(file) as networks:
        new = log_imported(
            root, facts["name"], tags, params, (folder / "reports", rows),
            networks,
        )  # fmt: skip
    return ", and a run in MLflow" if new else "; MLflow has it"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


@contextmanager
def _unpacked(file: Path) -> Iterator[Path]:
    """Give a temporary folder with the contents of an archive."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(file) as archive:
                archive.extractall(folder, filter="data")
        except (OSError, tarfile.TarError, EOFError) as error:
            raise UserError(f"{file} is no complete archive ({error}): copy it again") from error
        yield Path(folder)


@contextmanager
def _networks(file: Path) -> Iterator[Path | None]:
    """Give a folder with the networks from the parts beside ``file``, or None without parts."""
    stem = file.name.removesuffix("-results.tar.gz")
    parts = sorted(file.parent.glob(f"{stem}-networks.tar.*"), key=lambda p: int(p.suffix[1:]))
    if not parts:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "networks.tar")
        whole.write_bytes(b"".join(part.read_bytes() for part in parts))
        with _unpacked(whole) as networks:
            yield networks / "artifacts"
