"""The bundle's commands at home: ``python -m pipeline.bundle build | intake``."""

import argparse
import platform
import sys
from pathlib import Path

from pipeline.errors import UserError


def main() -> None:
    """Read the command and do it."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.bundle", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="write the folder that runs without a network")
    build.add_argument("--out", type=Path, default=Path("dist/bundle"))
    build.add_argument("--python", default=".".join(platform.python_version_tuple()[:2]))
    build.add_argument("--platform", default=f"manylinux_2_28_{platform.machine()}")
    build.add_argument("--data", type=Path, action="append", default=[])
    build.add_argument("--with", dest="more", nargs="*", default=[], metavar="PACKAGE")
    build.add_argument("--wheels", type=Path, help="take these wheels; download none")
    intake = commands.add_parser("intake", help="take in what a bundle's run brought back")
    intake.add_argument("files", type=Path, nargs="+")
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
