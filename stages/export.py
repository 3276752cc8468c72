"""Export a network in several formats, checked and measured, with a model card.

The measured times differ from run to run; everything else depends on the inputs alone.
"""

import argparse
from pathlib import Path

from pipeline.export.write import Inputs, export
from pipeline.stagekit.cli import run

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--dense", type=Path, required=True, help="for comparison")
parser.add_argument("--metrics", type=Path, nargs="*", default=[], help="stages that measure it")
parser.add_argument("--dense-metrics", type=Path, nargs="*", default=[])
parser.add_argument("--formats", nargs="+", required=True, help="files of pipeline/export/formats")
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    inputs = Inputs(flags.data, flags.model, flags.dense, flags.metrics, flags.dense_metrics)
    export(inputs, flags.formats, flags.out)


if __name__ == "__main__":
    run(main, parser)
