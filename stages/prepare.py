"""Read a data set in its official format, split off the validation set, and store it as uint8."""

import argparse
from dataclasses import replace
from pathlib import Path

from pipeline import registry
from pipeline.code_files import is_path
from pipeline.data.base import save
from pipeline.data.build import prepare, read
from pipeline.errors import UserError
from pipeline.stagekit.cli import atomic_folder, run

# One split for every seed and experiment, so that their validation accuracies are comparable.
SPLIT_SEED = 0

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--name", required=True, help="a file of pipeline/data, or a path")
parser.add_argument("--task", help="its expected task, a file of pipeline/tasks")
parser.add_argument("--root", type=Path, help="the folder of its files")
parser.add_argument("--size", type=int, help="pixels a side, or tokens a sentence")
parser.add_argument("--listing", help="hash of its files; a change re-runs the stage")
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    raw = read(flags.name, flags.root, flags.size)
    if flags.task is not None and is_path(flags.task):
        raw = replace(raw, task=flags.task)  # whose path a data set cannot know
    if flags.task not in {None, raw.task}:
        raise UserError(
            f"data.name is {flags.name}, which is for the task {raw.task}, but the recipe says "
            f"task: {flags.task}: write task: {raw.task} in it"
        )
    data = prepare(registry.label("data", flags.name), raw, seed=SPLIT_SEED)
    with atomic_folder(flags.out) as folder:
        save(data, folder)


if __name__ == "__main__":
    run(main, parser)
