"""Metadata of a model card: the YAML block, written by huggingface_hub without a network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.export.card import body
from pipeline.export.facts import TASKS, Facts, words
from pipeline.optional_imports import extra

SPLITS = {"val": "validation", "test": "test"}
TAGS = {".onnx": "onnx", ".xml": "openvino", ".pt2": "pytorch", ".safetensors": "safetensors"}


def write_card(facts: Facts, path: Path) -> None:
    """Write the model card, metadata and body, to ``path``."""
    text = f"---\n{card_data(facts).to_yaml()}\n---\n\n{body(facts)}"
    path.write_text(text, encoding="utf-8")


def card_data(facts: Facts) -> Any:
    """Return the metadata as huggingface_hub's ModelCardData."""
    hub = extra("huggingface_hub", "export")
    formats = dict.fromkeys(
        TAGS[suffix] for name in facts.files if (suffix := _suffix(name)) in TAGS
    )
    return hub.ModelCardData(
        model_name=facts.name,
        pipeline_tag=TASKS.get(facts.task),
        tags=["sparse", "pruning", *(["model-soup"] if facts.merge else []), *formats],
        metrics=[facts.metric],
        eval_results=[hub.EvalResult(**result) for result in _results(facts)],
        network=facts.network,
        sparsity=facts.metrics["sparsity"],
        **_costs(facts),
    )


def _suffix(name: str) -> str:
    return Path(name).suffix


def _costs(facts: Facts) -> dict[str, Any]:
    """Return multiply-accumulates, bytes and latency, those that are known."""
    costs = {
        "macs": facts.metrics.get("macs"),
        "sparse_macs": facts.metrics.get("sparse_macs"),
        "macs_without_filters": facts.small_macs,
        "bytes": dict(facts.files) or None,
        "latency_ms": {
            label: {
                f"batch_{size}": dict(
                    zip(("model", "dense"), facts.latency[size][label], strict=True)
                )
                for size in facts.latency
            }
            for label in next(iter(facts.latency.values()), {})
        }
        or None,
        "latency_machine": f"{facts.machine}, 1 thread" if facts.latency else None,
    }
    return {key: value for key, value in costs.items() if value is not None}


def _results(facts: Facts) -> Iterator[dict[str, Any]]:
    """Yield the arguments of each EvalResult: scores, robustness and worst groups."""
    data, metrics = str(facts.data["name"]), facts.metrics
    common = {"task_type": TASKS.get(facts.task, facts.task), "dataset_type": data}
    plain = {**common, "dataset_name": data}
    metric = {"metric_type": facts.metric, "metric_name": words(facts.metric)}
    for split, name in SPLITS.items():
        if (value := metrics.get(f"{split}_{facts.metric}")) is not None:
            yield {**plain, "dataset_split": name, **metric, "metric_value": value}
    for label, value in facts.scores.items():
        named = metric | {"metric_name": f"{words(facts.metric)}, {label}"}
        yield {**plain, "dataset_split": "test", **named, "metric_value": value}
    for worst in facts.worst(metrics):
        named = {"metric_type": worst.metric, "metric_name": f"worst {words(worst.metric)}"}
        named["metric_name"] += f" of a {worst.group_set}: {worst.group}"
        yield {**plain, "dataset_split": "test", **named, "metric_value": worst.value}
    if "mean_15" in metrics:
        kind = "synthetic" if metrics.get("synthetic") else "official"
        corrupted = {"dataset_name": f"{data}, corrupted ({kind})", "dataset_split": "test"}
        named = {"metric_type": "accuracy", "metric_name": "accuracy over 15 corruptions"}
        config = {"dataset_config": "corrupted"}
        yield {**common, **corrupted, **config, **named, "metric_value": metrics["mean_15"]}
