"""Measure one network: its task's metrics on validation and test, and its theoretical cost."""

import argparse
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline import registry
from pipeline.code_files import is_path
from pipeline.data.base import Dataset, load
from pipeline.errors import UserError
from pipeline.evaluate.cost import cost
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import PREDICTIONS, network, read
from pipeline.storage.checkpoint import load_tensors, write_json
from pipeline.tasks.base import Task
from pipeline.tasks.base import load as load_task

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--groups", action="store_true", help="the recall of every group")
parser.add_argument("--out", type=Path, required=True)


def measure_test_split(
    task: Task, predictions: Tensor, data: Dataset, *, groups: bool
) -> dict[str, Any]:
    """Return the task's summary of the test split, or its metrics if the task has no summary."""
    if is_path(data.task):
        module = registry.load("tasks", data.task, "task")
    else:
        name = f"pipeline.evaluate.{data.task}"
        module = import_module(name) if find_spec(name) is not None else None
    if hasattr(module, "summary"):
        summary: dict[str, Any] = module.summary(predictions, data.test, data, groups=groups)
        if not isinstance(summary, dict) or f"test_{task.metric}" not in summary:
            raise UserError(
                f"task is {data.task!r}, whose summary returns {summary!r:.200}: it must return a "
                f"dict with the key test_{task.metric}"
            )
        return summary
    measures = task.measure(predictions, data.test, data)
    return {"test_examples": len(data.test)} | {f"test_{k}": v for k, v in measures.items()}


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    data, checkpoint = load(flags.data), read(flags.model)
    task, kept = load_task(data.task), load_tensors(flags.model / PREDICTIONS)
    val = task.measure(kept["val"], data.val, data)
    metrics = {
        "metric": task.metric,
        **{f"val_{name}": value for name, value in val.items()},
        "sparsity": checkpoint.meta["sparsity"],
        **measure_test_split(task, kept["test"], data, groups=flags.groups),
        **cost(network(checkpoint), checkpoint.masks, data.test.images[:1]),
    }
    with atomic_folder(flags.out) as folder:
        write_json(folder / "metrics.json", metrics)


if __name__ == "__main__":
    run(main, parser)
