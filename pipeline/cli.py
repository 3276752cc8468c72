"""What every stage's command line shares: threads, determinism, clean errors, atomic outputs."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pipeline.errors import UserError


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the command line and call ``main`` with the machine set up for equal bits.

    One thread unless ``SMS_THREADS`` says otherwise: sums over several threads come in another
    order, so the number of threads is part of what makes two runs equal. A `UserError` ends the
    process with one sentence on standard error and exit status 2.
    """
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("SMS_THREADS", "1")))
    if torch.cuda.is_available():  # the switch takes seconds, and the CPU does not need it
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        # Else every new tensor is filled with NaN first, to find reads of unwritten memory.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        main(arguments)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


@contextmanager
def publish(out: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``out`` when the block ends without an exception.

    Whoever looks at ``out`` sees the whole result or none of it, whatever kills the stage.
    """
    folder = out.with_name(f".{out.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(out, ignore_errors=True)
    folder.rename(out)
