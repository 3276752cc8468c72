"""Two saved views of the MLflow UI, which stores them as tags of the experiment."""

import base64
import json
import zlib
from collections.abc import Iterable, Sequence

from pipeline.plan.declared import paper_methods

SCORE = "test_score"
MEASURES = ("ood_accuracy_15", "test_worst_group", "worst_class")


def tags(methods: Iterable[str] = ()) -> dict[str, str]:
    """Return the tags of an experiment: its kind, model training, and its saved views.

    The view ``Results`` has a line per method, phase and seed of every run of the graph;
    ``Experiments`` has a line per run, with a column for each method of the paper's main tables and
    for ``methods``. The link to a view ends in ``?viewStateShareKey=results``. A version of the UI
    without saved views shows its usual table.
    """
    shown = dict.fromkeys(["dense", *paper_methods("prune_after_training"), *methods])
    results = [f"params.`{key}`" for key in ("recipe", "m", "method", "phase", "seed")]
    results += [f"metrics.`{key}`" for key in ("sparsity", SCORE, *MEASURES)]
    experiments = [f"params.`{key}`" for key in ("m", "phases", "target_sparsity")]
    experiments += [f"metrics.`{SCORE}/{method}`" for method in shown]
    experiments += [f"metrics.`stages/{outcome}`" for outcome in ("ran", "cached")]
    prefix = "mlflow.sharedViewState"
    return {
        "mlflow.experimentKind": "custom_model_development",
        f"{prefix}.results": _view("Results", "result", results, f"metrics.`{SCORE}`"),
        f"{prefix}.experiments": _view(
            "Experiments", "graph", experiments, "attributes.start_time"
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
