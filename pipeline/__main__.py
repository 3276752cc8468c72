"""Plans, runs and reports the experiment of params.yaml, and lists its choices."""

import argparse
import sys
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
    commands: dict[str, tuple[str, Callable[[argparse.Namespace], int]]] = {
        "run": ("plan, run the missing stages, and report, as `dvc repro` does", _run),
        "plan": ("check params.yaml and write the graph, stages/dvc.yaml", _plan),
        "report": ("write reports/ from the artifacts that are up to date", _report),
        "cost": ("print epochs, images and hours of the plan; nothing is trained", _cost),
        "recipes": ("list the recipes", lambda _: _list(experiment.recipes())),
        "methods": ("list the methods, and the choices of merge, prune and retrain", _methods),
        "studies": ("list the studies", lambda _: _list(studies())),
    }
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (about, _) in commands.items():
        subparser = subparsers.add_parser(name, help=about)
        if name == "cost":
            _add_cost_flags(subparser)
    flags = parser.parse_args()
    try:
        sys.exit(commands[flags.command][1](flags))
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
def _run(_: argparse.Namespace) -> int:
    from pipeline.repro import repro  # noqa: PLC0415

    return repro(Path.cwd())


def _plan(_: argparse.Namespace) -> int:
    from pipeline.repro import GRAPH, write_plan  # noqa: PLC0415

    plan = write_plan(Path.cwd())
    sys.stdout.write(f"{GRAPH}: {len(plan.nodes)} stages for {len(plan.rows)} results\n")
    return 0


def _report(_: argparse.Namespace) -> int:
    from pipeline.repro import report  # noqa: PLC0415

    report(Path.cwd())
    return 0


def _add_cost_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--speed", type=float, help="images/s; measured here by default")
    parser.add_argument("--images", type=int, help="training images; by default artifacts/data's")
    parser.add_argument("--slots", type=int, nargs="+", help="stages that train at once")


def _cost(flags: argparse.Namespace) -> int:
    from pipeline.plan import cost  # noqa: PLC0415

    for name in ("speed", "images", "slots"):
        values = getattr(flags, name) or [1] if name == "slots" else [getattr(flags, name)]
        if any(value is not None and value <= 0 for value in values):
            raise UserError(f"--{name} must be greater than 0")
    params = experiment.load(Path("params.yaml"))
    images = cost.training_images(Path.cwd(), flags.images)
    speed = flags.speed or _speed(params)
    sys.stdout.write(cost.report(params, images, speed, flags.slots or cost.SLOTS))
    return 0


def _speed(params: experiment.Experiment) -> float:
    from pipeline.plan.build import build  # noqa: PLC0415
    from pipeline.plan.speed import images_per_second  # noqa: PLC0415

    return images_per_second(build(params), Path.cwd())


def _methods(_: argparse.Namespace) -> int:
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
