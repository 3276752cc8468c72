"""Taking in what a bundle's run brought back: rows into docs/data/, the rest into MLflow."""

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
# One result: the same row of the same experiment, from the same code on the same card.
KEY = ["experiment", "golden", "commit", "card", "torch", "method", "phase", "seed"]
LEFT = ("model", "ood_about")
# What does not tell experiments apart: a row is the same whatever else is run beside it.
UNDECISIVE = ("about", "seeds", "methods", "merge", "studies", "study", "evaluate", "paper")


def take_in(root: Path, files: Sequence[Path]) -> Iterator[str]:
    """Take in each of ``files``; give a line on each. What is there already is not added again.

    ``NAME-results.tar.gz`` adds its rows to docs/data/runs.csv and one run to MLflow, tagged
    imported, with the networks of ``NAME-networks.tar.*`` beside it. ``NAME.jsonl`` holds
    measurements of the scripts in benchmarks/card, an object a line, for docs/data/card.csv.

    Raises:
        UserError: a file is no such file, or damaged.
    """
    for file in files:
        if file.name.endswith("-results.tar.gz"):
            yield _results(root, file)
        elif file.suffix == ".jsonl":
            yield _measurements(root, file)
        elif "-networks.tar." not in file.name:
            raise UserError(
                f"{file} must be NAME-results.tar.gz, NAME-networks.tar.N or NAME.jsonl, "
                "as a bundle's run and the scripts in benchmarks/card write them"
            )


def _results(root: Path, file: Path) -> str:
    with _unpacked(file) as folder:
        facts = read_json(folder / "run.json")
        table = pd.read_csv(folder / "reports" / "results.csv")
        table = table[table.filter(like="test_").notna().any(axis=1)]
        rows = table.drop(columns=[name for name in LEFT if name in table])
        for name in reversed(FACTS):
            value = facts[name]
            rows.insert(0, name, " ".join(value) if isinstance(value, list) else value)
        rows.insert(0, "experiment", experiment_id(facts["params"]))
        added = _append(root / RUNS, rows, KEY)
        note = _track(root, file, folder, facts, table)
    return f"{file.name}: {added} of {len(rows)} rows are new in {RUNS}{note}"


def experiment_id(values: dict[str, Any]) -> str:
    """Return a hash of all settings but the seeds and which methods and measurements there are.

    Rows with equal hashes differ in their seed only, and may be pooled.
    """
    decisive = {key: value for key, value in values.items() if key not in UNDECISIVE}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


def _measurements(root: Path, file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        table = pd.DataFrame([json.loads(line) for line in lines])
    except ValueError as error:
        raise UserError(f"{file}: every line must be a JSON object ({error})") from error
    if not len(table):
        return f"{file.name}: it is empty"
    added = _append(root / MEASURES, table, list(table.columns))
    return f"{file.name}: {added} of {len(table)} measurements are new in {MEASURES}"


def _append(path: Path, rows: pd.DataFrame, key: list[str]) -> int:
    """Add those of ``rows`` whose ``key`` the table at ``path`` does not have; return how many."""
    # As text, so that what is in the file stays as it is, digit by digit.
    new = pd.read_csv(io.StringIO(rows.to_csv(index=False)), dtype=str, keep_default_na=False)
    old = pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else pd.DataFrame()
    known = set(map(tuple, old.reindex(columns=key, fill_value="").to_numpy().tolist()))
    fresh = new[[tuple(row) not in known for row in new[key].to_numpy().tolist()]]
    whole = pd.concat([old, fresh.drop_duplicates(key)]).fillna("")
    with atomic_file(path) as temporary:
        whole.to_csv(temporary, index=False, lineterminator="\n")
    return len(whole) - len(old)


def _track(root: Path, file: Path, folder: Path, facts: dict[str, Any], table: pd.DataFrame) -> str:
    """Log one MLflow run, tagged imported, with the report and the networks; once a file."""
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
    """Give a temporary folder with what the archive holds."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(file) as archive:
                archive.extractall(folder, filter="data")
        except (OSError, tarfile.TarError, EOFError) as error:
            raise UserError(f"{file} is no whole archive ({error}): copy it again") from error
        yield Path(folder)


@contextmanager
def _networks(file: Path) -> Iterator[Path | None]:
    """Give a folder with the networks that lie in parts beside the results, if they are whole."""
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
