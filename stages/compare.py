"""Measure a soup's candidates for comparison: the best, their mean, ensemble and distances."""

import argparse
from pathlib import Path
from statistics import fmean

from pipeline.data.base import load
from pipeline.evaluate.distance import distances
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import PREDICTIONS, network, read
from pipeline.storage.checkpoint import load_tensors, read_json, write_json
from pipeline.tasks.base import load as load_task
from pipeline.tasks.base import score

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--candidates", type=Path, nargs="+", required=True)
parser.add_argument("--soup", type=Path, required=True)
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    data = load(flags.data)
    task, splits = load_task(data.task), {"val": data.val, "test": data.test}
    kept = [load_tensors(folder / PREDICTIONS) for folder in flags.candidates]
    scores = [
        {name: score(task, predictions[name], splits[name], data) for name in splits}
        for predictions in kept
    ]
    best = max(range(len(scores)), key=lambda number: scores[number]["val"])
    ensembles = {name: task.ensemble([each[name] for each in kept]) for name in splits}
    of_ensemble = {
        name: score(task, predictions, splits[name], data)
        for name, predictions in ensembles.items()
        if predictions is not None
    }
    merged = flags.soup / "merge.json"
    metrics = {
        "best_candidate": {"candidate": best, **_named(scores[best], task.metric)},
        "mean_candidate": _named(
            {name: fmean(each[name] for each in scores) for name in splits}, task.metric
        ),
        "ensemble": _named(of_ensemble, task.metric),
        "included": read_json(merged)["included"] if merged.exists() else list(range(len(scores))),
    }
    if len(flags.candidates) > 1:
        checkpoints = [read(folder) for folder in flags.candidates]
        parameters = [name for name, _ in network(checkpoints[0]).named_parameters()]
        metrics |= distances([checkpoint.state for checkpoint in checkpoints], parameters)
    with atomic_folder(flags.out) as folder:
        write_json(folder / "metrics.json", metrics)


def _named(by_split: dict[str, float], metric: str) -> dict[str, float]:
    return {f"{split}_{metric}": value for split, value in by_split.items()}


if __name__ == "__main__":
    run(main, parser)
