"""Merge candidates that share one mask into a soup of the same sparsity."""

import argparse
from dataclasses import asdict
from pathlib import Path

from pipeline.checkpoint import Checkpoint, read_json, write_json
from pipeline.cli import publish, run
from pipeline.data.base import load
from pipeline.model_folder import calibrated, read, write
from pipeline.soup import greedy, uniform
from pipeline.tasks.base import load as load_task
from pipeline.tasks.base import score as score_of
from pipeline.train.device import pick

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--candidates", type=Path, nargs="+", required=True)
parser.add_argument("--rule", required=True, choices=["uniform", "greedy"])
parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    data, device = load(flags.data), pick(flags.device)
    task = load_task(data.task)
    candidates = [read(folder) for folder in flags.candidates]

    def score(soup: Checkpoint) -> float:
        return score_of(task, calibrated(soup, data, device)[1], data.val, data)

    if flags.rule == "greedy":
        own = [
            read_json(folder / "metrics.json")[f"val_{task.metric}"] for folder in flags.candidates
        ]
        soup = greedy(candidates, own, score)
        taken, trials = soup.taken, [asdict(trial) for trial in soup.trials]
        merged = soup.checkpoint
    else:
        taken, trials = tuple(range(len(candidates))), []
        merged = uniform(candidates)
    weights = [1 / len(taken) if number in taken else 0.0 for number in range(len(candidates))]
    with publish(flags.out) as folder:
        write(folder, merged, data, device, taken=len(taken))
        write_json(
            folder / "merge.json",
            {"rule": flags.rule, "taken": list(taken), "trials": trials, "weights": weights},
        )


if __name__ == "__main__":
    run(main, parser)
