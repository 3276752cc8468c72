"""Builds a bundle and imports its results: ``python -m pipeline.bundle build | intake``."""

import argparse
import platform
import sys
from pathlib import Path

from pipeline.errors import UserError


def main() -> None:
    """Run the command of the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.bundle", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="write the folder that runs without a network")
    add = build.add_argument
    version, linux = platform.python_version_tuple(), f"manylinux_2_28_{platform.machine()}"
    add("--out", type=Path, default=Path("dist/bundle"), help="the folder to write")
    add("--python", default=".".join(version[:2]), help="version of Python on the other machine")
    add("--platform", default=linux, help="its platform, as pip names it")
    add("--data", type=Path, action="append", default=[], help="a folder or archive for data/")
    add("--with", dest="more", nargs="*", default=[], metavar="PACKAGE", help="further packages")
    add("--wheels", type=Path, help="a folder of wheels to use; nothing is downloaded")
    intake = commands.add_parser("intake", help="import the results of a bundle's run")
    intake.add_argument("files", type=Path, nargs="+", help="the files that the run wrote")
    options = parser.parse_args()
    try:
        {"build": _build, "intake": _intake}[options.command](options)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


# Imported where they are used: MLflow and pandas take seconds.
def _build(options: argparse.Namespace) -> None:
    from pipeline.bundle.build import LIMIT, Options, build  # noqa: PLC0415

    wanted = Options(
        options.python,
        options.platform,
        tuple(options.data),
        tuple(options.more),
        options.wheels,
    )
    sizes = build(Path.cwd(), options.out, wanted)
    parts = ", ".join(f"{part} {size:.1f}" for part, size in sizes.items())
    sys.stdout.write(f"{options.out}: {sum(sizes.values()):.1f} MiB ({parts})\n")
    if sizes["project"] + sizes["wheels"] > LIMIT:
        sys.stderr.write(f"warning: code and wheels take more than {LIMIT} MiB\n")


def _intake(options: argparse.Namespace) -> None:
    from pipeline.bundle.intake import take_in  # noqa: PLC0415

    for line in take_in(Path.cwd(), options.files):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
