"""Two saved views and the description of the experiment in the MLflow UI, stored as its tags."""

import base64
import json
import zlib
from collections.abc import Iterable, Sequence

from pipeline.plan.declared import paper_methods

SCORE = "test_score"
MEASURES = ("ood_accuracy_15", "test_worst_group", "worst_class")
VIEWS = {"experiments": "Experiments", "results": "Results"}  # the key in a link, the name
DESCRIPTION = "mlflow.note.content"
SUMMARY = (
    "Sparse Model Soups: a run for each `dvc repro`, with its results and stages nested in it."
)
KINDS = [
    (
        "`graph`",
        "one `dvc repro` or `dvc exp run`; the others are nested in it",
        "`test_score/METHOD`, a fraction at the step of its phase; `stages/ran` and "
        "`stages/cached`; the table in its description; the report in its artifacts",
    ),
    (
        "`result`",
        "one method, phase and seed",
        "`sparsity`, `test_score`, and the accuracies on corrupted images and of groups",
    ),
    (
        "`pretrain`, `prune`, `retrain`, `merge` and so on",
        "one stage, named as its folder in artifacts/",
        "the curves `epoch/...`; the tag `cached` says whether it was computed before",
    ),
]
REGISTERED = "The tag `soup` of a `graph` run names the version of the model that it registered."


def tag(view: str) -> str:
    """Return the tag that stores ``view``, a key of `VIEWS`."""
    return f"mlflow.sharedViewState.{view}"


def link(experiment: str, view: str) -> str:
    """Return the link to ``view`` of the experiment with this id, relative to MLflow's address.

    ``workflowType`` shows the pages of model training; otherwise the UI shows those of GenAI.
    """
    shown = f"viewStateShareKey={view}&workflowType=machine_learning"
    return f"#/experiments/{experiment}/runs?{shown}"


def description(experiment: str) -> str:
    """Return the description of the experiment with this id, in Markdown.

    The UI shows its first paragraph, and the rest on a click.
    """
    views = " and ".join(f"[{name}]({link(experiment, view)})" for view, name in VIEWS.items())
    rows = ["tag `kind` | a run is | look at", "--- | --- | ---", *map(" | ".join, KINDS)]
    table = "\n".join(f"| {row} |" for row in rows)
    return f"{SUMMARY} Saved views: {views}.\n\n{table}\n\n{REGISTERED}\n"


def tags(methods: Iterable[str] = ()) -> dict[str, str]:
    """Return the tags of an experiment: its kind, model training, and its saved views.

    The view ``Results`` has a line per method, phase and seed of every run of the graph;
    ``Experiments`` has a line per run, with a column for each of ``methods`` and for each method of
    the paper's main tables. A version of the UI without saved views shows its usual table.
    """
    shown = dict.fromkeys(["dense", *methods, *paper_methods("prune_after_training")])
    results = [f"params.`{key}`" for key in ("recipe", "m", "method", "phase", "seed")]
    results += [f"metrics.`{key}`" for key in ("sparsity", SCORE, *MEASURES)]
    experiments = [f"params.`{key}`" for key in ("m", "phases", "target_sparsity")]
    experiments += [f"metrics.`{SCORE}/{method}`" for method in shown]
    experiments += [f"metrics.`stages/{outcome}`" for outcome in ("ran", "cached")]
    return {
        "mlflow.experimentKind": "custom_model_development",
        tag("results"): _view(VIEWS["results"], "result", results, f"metrics.`{SCORE}`"),
        tag("experiments"): _view(
            VIEWS["experiments"], "graph", experiments, "attributes.start_time"
        ),
    }


def _view(name: str, kind: str, columns: Sequence[str], order: str) -> str:
    state = {
        "searchFilter": f"tags.kind = '{kind}'",
        "orderByKey": order,
        "orderByAsc": False,
        "selectedColumns": list(columns),
        "columnOrder": list(columns),
        "columnWidths": {column: max(105, 8 * len(column) - 60) for column in columns},  # pixels
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"})
