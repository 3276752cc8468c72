"""Plans, runs and reports the experiment of params.yaml, and lists its choices."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import experiment
from pipeline.errors import UserError
from pipeline.plan.build import methods, studies
from pipeline.plan.choices import choices
from pipeline.storage import disk_space

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Run the command of the command line."""
    commands: dict[str, tuple[str, Callable[[], int]]] = {
        "run": ("plan, run the missing stages, and report, as `dvc repro` does", _run),
        "plan": ("check params.yaml and write the graph, stages/dvc.yaml", _plan),
        "report": ("write reports/ from the artifacts that are up to date", _report),
        "recipes": ("list the recipes", lambda: _list(experiment.recipes())),
        "methods": ("list the methods, and the choices of merge, prune and retrain", _methods),
        "studies": ("list the studies", lambda: _list(studies())),
    }
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (about, _) in commands.items():
        subparsers.add_parser(name, help=about)
    _add_export(subparsers.add_parser("export", help="write a network for use elsewhere"))
    flags = parser.parse_args()
    action = partial(_export, flags) if flags.command == "export" else commands[flags.command][1]
    try:
        sys.exit(action())
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except Exception as error:
        sentence = disk_space.shortage(error)  # while planning, reporting or locking
        if sentence is None:
            raise
        sys.stderr.write(
            f"error: {sentence}: make room, then run again; finished stages are kept\n"
        )
        sys.exit(2)


# Imported where they are used: pandas and DVC take seconds, which the lists do not need.
def _run() -> int:
    from pipeline.repro import repro  # noqa: PLC0415

    return repro(Path.cwd())


def _plan() -> int:
    from pipeline.repro import GRAPH, write_plan  # noqa: PLC0415

    plan = write_plan(Path.cwd())
    sys.stdout.write(f"{GRAPH}: {len(plan.nodes)} stages for {len(plan.rows)} results\n")
    return 0


def _report() -> int:
    from pipeline.repro import report  # noqa: PLC0415

    report(Path.cwd())
    return 0


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        help="a stage, such as s0-sms_uniform-p3, or a model's folder; default: the last phase's "
        "soup with the best validation score",
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--formats", nargs="+", default=[], help="default: export in params.yaml, or all"
    )


def _export(flags: argparse.Namespace) -> int:
    from pipeline.repro import export  # noqa: PLC0415

    export(Path.cwd(), flags.model, flags.formats, flags.out)
    return 0


def _methods() -> int:
    for heading, names in ({"methods": methods()} | choices()).items():
        sys.stdout.write(f"{heading}:\n")
        _list(names)
        sys.stdout.write("\n")
    return 0


def _list(names: dict[str, str]) -> int:
    width = max(map(len, names))
    sys.stdout.writelines(f"{name:<{width}}  {about}\n" for name, about in names.items())
    return 0


if __name__ == "__main__":
    main()
