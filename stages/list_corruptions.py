"""List an official corrupted set of image files, so that evaluations need not hash millions."""

import argparse
from pathlib import Path

from pipeline.data.base import load
from pipeline.evaluate.corruptions.manifest import list_files
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.storage.checkpoint import write_json

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True, help="for the names of its classes")
parser.add_argument("--folder", type=Path, required=True, help="ImageNet-C, or one laid out alike")
parser.add_argument("--listing", help="a hash of its files; another one runs the stage anew")
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    meta = list_files(flags.folder, load(flags.data).classes)
    with atomic_folder(flags.out) as folder:
        write_json(folder / "meta.json", meta)


if __name__ == "__main__":
    run(main, parser)
