"""Merge candidates that share one mask into a soup of the same sparsity."""

import argparse
from pathlib import Path

from pipeline.data.base import load
from pipeline.soup import build
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.merge_inputs import MergeInputs
from pipeline.stagekit.model_folder import write
from pipeline.storage.checkpoint import write_json
from pipeline.train.device import resolve_device
from pipeline.train.placement import resident

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--candidates", type=Path, nargs="+", required=True)
parser.add_argument("--rule", required=True, help="a file of pipeline/soup")
parser.add_argument("--parent", type=Path, help="the pruned model, for rules that start from it")
parser.add_argument("--dense", type=Path, help="the dense model, for distillation")
parser.add_argument("--seed", type=int, default=0, help="for rules that learn in batches")
parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    device = resolve_device(flags.device)
    data = resident(load(flags.data), device)
    inputs = MergeInputs(
        flags.candidates, data, device, parent=flags.parent, dense=flags.dense, seed=flags.seed
    )
    arguments = {name: getattr(inputs, name) for name in build.required_inputs(flags.rule)}
    soup = build.merge(flags.rule, inputs.candidates, **arguments)
    with atomic_folder(flags.out) as folder:
        write(folder, soup.checkpoint, data, device, included=len(soup.included))
        write_json(
            folder / "merge.json",
            {
                "rule": flags.rule,
                "included": list(soup.included),
                "reason": soup.reason,
                "weights": list(soup.weights),
                "parent_weight": soup.parent_weight,
                "trials": list(soup.trials),
            },
        )


if __name__ == "__main__":
    run(main, parser)
