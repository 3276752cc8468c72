"""Plans, runs and reports the experiment of params.yaml, lists its choices, and shows results."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import code_files
from pipeline.errors import UserError
from pipeline.run import interrupts
from pipeline.storage import disk_space

try:
    from pipeline.config import experiment
    from pipeline.plan.build import methods, studies
    from pipeline.plan.choices import choices
except ModuleNotFoundError as error:
    if (error.name or "pipeline").startswith("pipeline"):
        raise
    sys.stderr.write(
        f"error: {error.name} is not installed, as only the library pipeline.api is: install the "
        "pipeline too with pip install -e '.[pipeline]'\n"
    )
    sys.exit(2)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main() -> None:
    """Run the command of the command line."""
    try:
        sys.exit(_command())
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:  # before or after the stages, whose driver takes it as a request
        sys.stderr.write(interrupts.STOPPED)
        sys.exit(interrupts.INTERRUPTED)
    except (Exception, SystemExit) as error:
        if (own := code_files.failure(error)) is not None:
            sys.stderr.write(f"error: {own}\n")
            sys.exit(2)
        # A disk may be full while planning, reporting or locking.
        sentence = None if isinstance(error, SystemExit) else disk_space.shortage(error)
        if sentence is None:
            raise
        sys.stderr.write(
            f"error: {sentence}: make room, then run again; finished stages are kept\n"
        )
        sys.exit(2)


def _command() -> int:
    """Parse the command line, run its command, and return the exit status."""
    commands: dict[str, tuple[str, Callable[[], int]]] = {
        "run": ("plan, run the missing stages, and report, as `dvc repro` does", _run),
        "plan": ("check params.yaml and write the graph, stages/dvc.yaml", _plan),
        "report": ("write reports/ from the artifacts that are up to date", _report),
        "verify": ("hash all cached objects and artifacts again", _verify),
        "recipes": ("list the recipes", lambda: _list(experiment.recipes())),
        "methods": ("list the methods, and the choices of merge, prune and retrain", _methods),
        "studies": ("list the studies", lambda: _list(studies())),
    }
    with_arguments: dict[str, tuple[str, Callable[[Sequence[str]], int]]] = {
        "cost": ("print epochs, images and time of the plan; nothing is trained", _cost),
        "experiments": ("compare the experiments, the best first", _experiments),
        "export": ("write a network for use elsewhere", _export),
        "ui": ("open the saved views of the MLflow UI", _ui),
    }
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (about, _) in (commands | with_arguments).items():
        subparsers.add_parser(name, help=about, add_help=name in commands)
    known, others = parser.parse_known_args()
    if others and known.command in commands:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if known.command in commands:
        return commands[known.command][1]()
    return with_arguments[known.command][1](others)


def _project() -> Path:
    """Return the working directory, which must be the project's folder."""
    root = Path.cwd()
    if not (root / "params.yaml").is_file():
        raise UserError(f"{root} has no params.yaml: run from the project's folder")
    return root


# Imported where they are used: pandas and DVC take seconds, which the lists do not need.
def _run() -> int:
    interrupts.stop_by_signals()
    from pipeline.repro import repro  # noqa: PLC0415

    return repro(_project())


def _plan() -> int:
    from pipeline.repro import GRAPH, write_plan  # noqa: PLC0415

    plan = write_plan(_project())
    sys.stdout.write(f"{GRAPH}: {len(plan.nodes)} stages for {len(plan.rows)} results\n")
    return 0


def _report() -> int:
    from pipeline.repro import report  # noqa: PLC0415

    report(_project())
    return 0


def _verify() -> int:
    from pipeline.run.verify import verify  # noqa: PLC0415

    return verify(_project())


def _experiments(arguments: "Sequence[str]") -> int:
    from pipeline.show.table import experiments  # noqa: PLC0415

    return experiments(_project(), arguments)


def _ui(arguments: "Sequence[str]") -> int:
    from pipeline.show.mlflow_ui import ui  # noqa: PLC0415

    return ui(_project(), arguments)


def _export(arguments: "Sequence[str]") -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline export", description="Write a network for use elsewhere."
    )
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
    flags = parser.parse_args(arguments)
    from pipeline.repro import export  # noqa: PLC0415

    export(_project(), flags.model, flags.formats, flags.out)
    return 0


def _cost(arguments: "Sequence[str]") -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline cost", description="Print what the plan costs; nothing is trained."
    )
    parser.add_argument("--speed", type=float, help="images/s; measured here by default")
    parser.add_argument("--images", type=int, help="training images; by default artifacts/data's")
    parser.add_argument("--slots", type=int, nargs="+", help="stages that train at once")
    flags = parser.parse_args(arguments)
    from pipeline.plan import cost  # noqa: PLC0415

    for name in ("speed", "images", "slots"):
        values = getattr(flags, name) or [1] if name == "slots" else [getattr(flags, name)]
        if any(value is not None and value <= 0 for value in values):
            raise UserError(f"--{name} must be greater than 0")
    params = experiment.load(_project() / "params.yaml")
    images = cost.training_images(_project(), flags.images)
    speed = flags.speed or _speed(params)
    sys.stdout.write(cost.report(params, images, speed, flags.slots or cost.SLOTS))
    return 0


def _speed(params: experiment.Experiment) -> float:
    from pipeline.plan.build import build  # noqa: PLC0415
    from pipeline.plan.speed import images_per_second  # noqa: PLC0415

    return images_per_second(build(params), _project())


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
