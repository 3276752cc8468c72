"""List the files of an official corrupted test set, so that evaluations do not hash them all."""

import argparse
from pathlib import Path

from pipeline.data.base import load
from pipeline.evaluate.corruptions.manifest import list_files
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.storage.checkpoint import write_json

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True, help="for the names of its classes")
parser.add_argument(
    "--folder", type=Path, required=True, help="ImageNet-C, or a folder of its layout"
)
parser.add_argument("--listing", help="hash of its files; a change re-runs the stage")
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    meta = list_files(flags.folder, load(flags.data).classes)
    with atomic_folder(flags.out) as folder:
        write_json(folder / "meta.json", meta)


if __name__ == "__main__":
    run(main, parser)
