"""Set a soup's candidates beside it: the best, their mean, their ensemble, their distances."""

import argparse
from pathlib import Path
from statistics import fmean

from pipeline.checkpoint import load_tensors, read_json, write_json
from pipeline.cli import publish, run
from pipeline.data.base import load
from pipeline.evaluate.distance import distances
from pipeline.evaluate.metrics import accuracy, ensemble
from pipeline.model_folder import network, read

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--candidates", type=Path, nargs="+", required=True)
parser.add_argument("--soup", type=Path, required=True)
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    data = load(flags.data)
    splits = {"val": data.val.labels, "test": data.test.labels}
    logits = [load_tensors(folder / "logits.safetensors") for folder in flags.candidates]
    own = [{split: accuracy(one[split], splits[split]) for split in splits} for one in logits]
    best = max(range(len(own)), key=lambda number: own[number]["val"])
    both = {split: ensemble([one[split] for one in logits]) for split in splits}
    merged = flags.soup / "merge.json"
    metrics = {
        "best_candidate": {"candidate": best, **_named(own[best])},
        "mean_candidate": _named({split: fmean(one[split] for one in own) for split in splits}),
        "ensemble": _named({split: accuracy(both[split], splits[split]) for split in splits}),
        "taken": read_json(merged)["taken"] if merged.exists() else list(range(len(own))),
    }
    if len(flags.candidates) > 1:
        checkpoints = [read(folder) for folder in flags.candidates]
        parameters = [name for name, _ in network(checkpoints[0]).named_parameters()]
        metrics |= distances([one.state for one in checkpoints], parameters)
    with publish(flags.out) as folder:
        write_json(folder / "metrics.json", metrics)


def _named(by_split: dict[str, float]) -> dict[str, float]:
    return {f"{split}_accuracy": value for split, value in by_split.items()}


if __name__ == "__main__":
    run(main, parser)
