"""Rewind a pruned network: its kept weights become those of an early epoch of pretraining."""

import argparse
from pathlib import Path

from pipeline.prune.rewind import rewind
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import MODEL, read
from pipeline.storage.checkpoint import save, write_json

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--pruned", type=Path, required=True, help="whose masks are kept")
parser.add_argument("--early", type=Path, required=True, help="the network after that epoch")
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    rewound = rewind(read(flags.pruned), read(flags.early))
    with atomic_folder(flags.out) as folder:
        save(folder / MODEL, rewound)
        write_json(folder / "metrics.json", {"sparsity": rewound.meta["sparsity"]})


if __name__ == "__main__":
    run(main, parser)
