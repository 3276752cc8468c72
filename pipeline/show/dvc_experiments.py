"""DVC's experiments as rows: settings, scores of the last phase, state."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.track.summary import flatten, is_number

PARAMS, METRICS = "params.yaml", "reports/metrics.json"
Counts = tuple[int, int]  # stages that ran, and that were cached


@dataclass(frozen=True)
class Row:
    """A commit, the workspace or an experiment.

    ``state`` is commit, workspace, or DVC's: success, queued, running, failed. ``baseline`` is the
    commit that an experiment was started from. ``settings`` has the leaves of params.yaml by their
    joined keys, and the sparsity and the metric that were reached. ``metrics`` is metrics.json.
    """

    name: str
    state: str
    baseline: str
    created: datetime | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    counts: Counts | None = None
    error: str = ""

    @property
    def scores(self) -> dict[str, float]:
        """The test score of each method in the last phase, as a fraction."""
        scores = {
            method: value.get("test_score")
            for method, value in self.metrics.items()
            if isinstance(value, Mapping)
        }
        return {method: float(score) for method, score in scores.items() if is_number(score)}

    @property
    def best(self) -> str | None:
        """The sparse method with the highest test score; the first of equal ones."""
        sparse = {method: score for method, score in self.scores.items() if method != "dense"}
        return max(sparse, key=lambda method: sparse[method]) if sparse else None


def start(root: Path, arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Start ``dvc exp show --json`` with further ``arguments``, which select the experiments."""
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json", *arguments]
    return subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> list[Row]:
    """Return the rows of a process of `start`.

    Raises:
        UserError: DVC refuses, with its reason.
    """
    output, messages = process.communicate()
    try:
        return rows(json.loads(output))
    except json.JSONDecodeError:
        lines = [line for line in messages.splitlines() if line.strip()] or ["no output"]
        errors = [line for line in lines if "error" in line.lower()] or lines
        reason = errors[0].removeprefix("ERROR: ").strip().rstrip(".")
        raise UserError(
            f"`dvc exp show --json` lists no experiments ({reason}): ARGS must be arguments of it"
        ) from None


def rows(shown: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the rows of ``dvc exp show --json``: none if it has no experiment.

    Commits without experiments are left out, and so is the workspace if it equals another row or
    an experiment is running in it.
    """
    listed = [row for baseline in shown if baseline["experiments"] for row in _family(baseline)]
    if not listed:
        return []
    known = [(row.settings, row.metrics) for row in listed]
    in_workspace = any(row.state == "running" for row in listed)
    extra = [_row(baseline, "workspace") for baseline in shown if baseline["rev"] == "workspace"]
    new = [row for row in extra if row.metrics and (row.settings, row.metrics) not in known]
    return [*listed, *([] if in_workspace else new)]


def _family(baseline: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the row of a commit and those of its experiments."""
    yield _row(baseline, "commit")
    for experiment in baseline["experiments"]:
        state = (experiment["executor"] or {}).get("state", "success")
        row = _row(experiment["revs"][0], state)
        yield replace(row, baseline=baseline["rev"], name=experiment["name"] or row.name)


def _row(revision: Mapping[str, Any], state: str) -> Row:
    data = revision["data"] or {}
    settings = dict(flatten(_file(data, "params", PARAMS), "."))
    # Before an experiment has ended, DVC shows the metrics that were there when it was created.
    ended = state in {"commit", "success", "workspace"}
    metrics = _file(data, "metrics", METRICS) if ended else {}
    reached = {
        "sparsity": metrics.get("sparsity", settings.pop("target_sparsity", None)),
        "metric": metrics.get("metric"),
    }
    settings |= {key: value for key, value in reached.items() if value is not None}
    stamp, rev = data.get("timestamp"), revision["rev"]
    return Row(
        name=revision["name"] or (rev if state == "workspace" else rev[:7]),
        state=state,
        baseline=rev,
        created=datetime.fromisoformat(stamp) if stamp else None,
        settings=settings,
        metrics=metrics,
        error=(revision["error"] or {}).get("msg", ""),
    )


def _file(data: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    """Return the content of a parameter or metrics file; empty if DVC could not read it."""
    content = data.get(kind, {}).get(name, {}).get("data")
    return content if isinstance(content, dict) else {}
