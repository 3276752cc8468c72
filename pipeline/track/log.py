"""Log: writes the runs of one execution of the graph to MLflow, in few calls."""

import fcntl
import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from pipeline import code_files
from pipeline.track import open_runs, ui_views
from pipeline.track.registration import Registration
from pipeline.track.summary import Point, averages, curves, points

EXPERIMENT = "sparse-model-soups"
TAGGED = ("phases", "target_sparsity", "methods", "merge", "seeds")  # params that are tags too
STATUS = {"ran": "FINISHED", "cached": "FINISHED", "failed": "FAILED"}
SOURCE = {"mlflow.source.name": "dvc repro", "mlflow.source.type": "PROJECT"}
METRICS, PARAMS = 800, 100  # the most per call; MLflow accepts 1000 entries of all kinds


@contextmanager
def file_lock(name: str) -> Iterator[None]:
    """Run the block in one process at a time: experiments may start together on a new database."""
    with Path(name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Log:
    """One parent run and its nested runs: one per stage, and one per row of the results."""

    def __init__(self, artifacts: str | None) -> None:
        with file_lock("mlflow.db.lock"):
            self.client = MlflowClient()
            self.experiment = self._experiment(artifacts)
        self.clock = 0  # the time of the current event, in milliseconds since 1970
        self.runs: dict[str, str] = {}
        self.sent: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self.pending: dict[str, list[Metric]] = defaultdict(list)
        self.outcomes = {"ran": 0, "cached": 0, "failed": 0, "skipped": 0}
        self.parent = ""

    def open(self, root: str, params: Mapping[str, Any]) -> None:
        """Open the parent run."""
        self.root = Path(root)
        self.common = {key: str(params[key]) for key in ("recipe", "m") if key in params}
        commit = _git(self.root, "rev-parse", "HEAD")
        experiment = os.environ.get("DVC_EXP_NAME", "")
        tags = {
            "kind": "graph",
            "dvc.experiment": experiment,
            "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
            "mlflow.source.git.commit": commit,
            "git.dirty": _bool(bool(_git(self.root, "status", "--porcelain"))) if commit else "",
        }
        tags |= {key: _text(params[key]) for key in TAGGED if key in params}
        recipe = Path(self.common.get("recipe", "")).stem  # it may be the path of a file
        name = f"{experiment or 'repro'} {recipe} m={self.common.get('m')}"
        with file_lock("mlflow.db.lock"):
            self._end_abandoned()
            self.parent = self._create(name, {key: value for key, value in tags.items() if value})
            self.held = open_runs.hold(self.parent)
        self._write(self.parent, [], params=params)

    def started(self, node: Mapping[str, Any]) -> None:
        """Open the nested run of a stage."""
        self._open_node(node, cached=False)

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Keep the values that a running stage reported until the next `flush`."""
        self.pending[name] += self._metrics(curves([fields]))

    def flush(self) -> None:
        """Write the kept values, one call per run."""
        for name, values in self.pending.items():
            if name in self.runs:
                self._write(self.runs[name], values)
                self.sent[name] |= {(value.key, value.step) for value in values}
        self.pending.clear()

    def finished(self, node: Mapping[str, Any], outcome: str, seconds: float) -> None:
        """Add the metrics of a stage's artifact to its run, and end it."""
        self.outcomes[outcome] += 1
        if outcome == "skipped":
            return
        name = node["name"]
        if name not in self.runs:
            self._open_node(node, cached=outcome == "cached")
        pending = self.pending.pop(name, [])
        known = self.sent.pop(name, set()) | {(value.key, value.step) for value in pending}
        values: list[Point] = []
        if outcome != "failed":
            folder = self.root / "artifacts" / name
            epochs = curves(_read(folder / "history.json", []))
            values += [
                (key, step, value) for key, step, value in epochs if (key, step) not in known
            ]
            values += points(_read(folder / "metrics.json", {}))
        if outcome == "ran":
            values.append(("seconds", 0, seconds))
        run = self.runs.pop(name)
        self._write(run, [*pending, *self._metrics(values)], params=node["arguments"])
        self._end(run, STATUS[outcome])

    def dataset(self, folder: str, digest: str) -> None:
        """Log the data set as an input of the parent run."""
        meta = _read(Path(folder) / "meta.json", {})
        profile = {"classes": len(meta.get("classes", [])), "shape": meta.get("shape")}
        dataset = Dataset(
            name=str(meta.get("name", "data")),
            digest=digest.removesuffix(".dir"),
            source_type="local",
            source=json.dumps({"uri": folder}),
            schema=None,
            profile=json.dumps(profile),
        )
        tag = InputTag("mlflow.data.context", "training")
        self.client.log_inputs(self.parent, [DatasetInput(dataset, [tag])])

    def report(self, folder: str, rows: Sequence[Mapping[str, Any]], note: str) -> None:
        """Log the table of results as runs of the kind ``result``, and the report's files."""
        for row in rows:
            texts = {key: str(value) for key, value in row.items() if isinstance(value, str)}
            texts |= {key: str(row[key]) for key in ("phase", "seed")}
            name = f"{row['method']} p{row['phase']} s{row['seed']}"
            run = self._create(name, {"kind": "result", **texts})
            numbers = {key: value for key, value in row.items() if key not in {"phase", "seed"}}
            named = {key: texts[key] for key in ("method", "phase", "seed")} | self.common
            self._write(run, self._metrics(points(numbers)), params=named)
            self._end(run)
        metrics = self._metrics(averages(rows))
        self._write(self.parent, metrics, tags={"mlflow.note.content": note})
        self.client.log_artifacts(self.parent, folder, "report")
        methods = dict.fromkeys(str(row["method"]) for row in rows)
        for key, value in ui_views.tags(methods).items():  # with columns for these methods
            self.client.set_experiment_tag(self.experiment, key, value)

    def register(self, **fields: Any) -> None:
        """Register a `Registration` of these ``fields``, unless a version has its hashes."""
        soup = Registration(**fields)
        code_files.allow(soup.code)
        with file_lock("mlflow.db.lock"):
            version = self._version(soup.name, soup.hashes())
            if version is None:
                # Imported here: PyTorch is needed only for a new version.
                from pipeline.track.export import log_model  # noqa: PLC0415

                version = log_model(self.parent, soup.name, Path(soup.model), Path(soup.data))
                tags = {**soup.hashes(), **self.common, **soup.tags}
                for key, value in tags.items():
                    self.client.set_model_version_tag(soup.name, version, key, value)
            if soup.description:
                self.client.update_model_version(soup.name, version, soup.description)
                self.client.update_registered_model(soup.name, soup.description)
        self.client.set_tag(self.parent, "soup", f"models:/{soup.name}/{version}")

    def close(self, status: str) -> None:
        """End every run that is still open, and the parent."""
        if not self.parent:
            return
        self.flush()
        for run in self.runs.values():
            self._end(run, "KILLED" if status == "KILLED" else "FAILED")
        if status == "KILLED":
            self._end_nested(self.parent)  # of which MLflow refused the values
        counts = [(f"stages/{outcome}", 0, float(n)) for outcome, n in self.outcomes.items()]
        trained = self.outcomes["ran"] + self.outcomes["failed"] > 0
        self._write(self.parent, self._metrics(counts), tags={"cached": _bool(not trained)})
        self._end(self.parent, status)
        open_runs.release(self.held)

    def _end_abandoned(self) -> None:
        """End the runs of writers that were killed."""
        for run in open_runs.abandoned():
            self._end_nested(run)
            with suppress(MlflowException):  # of another database
                self._end(run, "KILLED")

    def _end_nested(self, parent: str) -> None:
        """End the runs in ``parent`` that are still open."""
        still_open = f"tags.mlflow.parentRunId = '{parent}' AND attributes.status = 'RUNNING'"
        for run in self.client.search_runs([self.experiment], still_open):
            self._end(run.info.run_id, "KILLED")

    def _experiment(self, artifacts: str | None) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            identifier = str(self.client.create_experiment(name, artifacts, tags=ui_views.tags()))
        else:
            identifier = str(experiment.experiment_id)
        if experiment is None or not experiment.tags.get(ui_views.DESCRIPTION):  # it may be edited
            text = ui_views.description(identifier)
            self.client.set_experiment_tag(identifier, ui_views.DESCRIPTION, text)
        return identifier

    def _open_node(self, node: Mapping[str, Any], *, cached: bool) -> None:
        tags = {**node["labels"], "cached": _bool(cached)}
        self.runs[node["name"]] = self._create(node["name"], tags)

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        nested = {"mlflow.parentRunId": self.parent} if self.parent else {}
        run = self.client.create_run(
            self.experiment,
            start_time=self.clock,
            run_name=name,
            tags={**self.common, **tags, **SOURCE, **nested},
        )
        return str(run.info.run_id)

    def _end(self, run: str, status: str = "FINISHED") -> None:
        self.client.set_terminated(run, status, self.clock)

    def _metrics(self, values: Sequence[Point]) -> list[Metric]:
        return [Metric(key, value, self.clock, step) for key, step, value in values]

    def _write(
        self,
        run: str,
        metrics: Sequence[Metric],
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        left_metrics, left_params = list(metrics), list((params or {}).items())
        left_tags = list((tags or {}).items())
        while left_metrics or left_params or left_tags:
            self.client.log_batch(
                run,
                metrics=left_metrics[:METRICS],
                params=[Param(key, _text(value)) for key, value in left_params[:PARAMS]],
                tags=[RunTag(key, value) for key, value in left_tags],
            )
            left_metrics, left_params = left_metrics[METRICS:], left_params[PARAMS:]
            left_tags = []

    def _version(self, name: str, hashes: Mapping[str, str]) -> str | None:
        versions = self.client.search_model_versions(f"name = '{name}'")
        same = [v.version for v in versions if hashes.items() <= v.tags.items()]
        return str(same[0]) if same else None


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _text(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[:500]


def _git(root: Path, *words: str) -> str:
    """Return what git prints; it does not rewrite its index, which it would not sync."""
    command = ["git", "--no-optional-locks", *words]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _read(path: Path, default: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default
