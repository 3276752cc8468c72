"""Rewrites every table of README.md and docs/: ``make tables``, or ``python -m pipeline.pages``."""

import sys
from pathlib import Path

from pipeline.errors import UserError
from pipeline.pages.regions import update


def main() -> None:
    """Write the pages whose tables have changed, and print their names."""
    try:
        changed = update(Path.cwd())
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    sys.stdout.writelines(f"{page}\n" for page in changed or ["no page has changed"])


if __name__ == "__main__":
    main()
