"""Set a soup's candidates beside it: the best, their mean, their ensemble, their distances."""

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
    own = [{name: score(task, one[name], splits[name], data) for name in splits} for one in kept]
    best = max(range(len(own)), key=lambda number: own[number]["val"])
    both = {name: task.ensemble([one[name] for one in kept]) for name in splits}
    together = {
        name: score(task, predictions, splits[name], data)
        for name, predictions in both.items()
        if predictions is not None
    }
    merged = flags.soup / "merge.json"
    metrics = {
        "best_candidate": {"candidate": best, **_named(own[best], task.metric)},
        "mean_candidate": _named(
            {name: fmean(one[name] for one in own) for name in splits}, task.metric
        ),
        "ensemble": _named(together, task.metric),
        "included": read_json(merged)["included"] if merged.exists() else list(range(len(own))),
    }
    if len(flags.candidates) > 1:
        checkpoints = [read(folder) for folder in flags.candidates]
        parameters = [name for name, _ in network(checkpoints[0]).named_parameters()]
        metrics |= distances([one.state for one in checkpoints], parameters)
    with atomic_folder(flags.out) as folder:
        write_json(folder / "metrics.json", metrics)


def _named(by_split: dict[str, float], metric: str) -> dict[str, float]:
    return {f"{split}_{metric}": value for split, value in by_split.items()}


if __name__ == "__main__":
    run(main, parser)
