"""Command line of the stages: threads, determinism, errors in one sentence, atomic outputs."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import torch

from pipeline import code_files
from pipeline.errors import UserError
from pipeline.events import note
from pipeline.process import cpu_name, threads
from pipeline.storage import disk_space


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the command line and call ``main``, with threads and kernels set for equal bits.

    The number of threads (``SMS_THREADS``, or 1) changes the order of sums and so their last bits.
    A `UserError` ends the process with one sentence on standard error and exit status 2, as any
    error in a file of the user's does, and a full disk with the status of
    `pipeline.storage.disk_space`. Of code outside this package the process executes only the files
    under ``--code``.
    """
    parser.add_argument("--code", nargs="+", default=[], help="files that it may execute")
    arguments = parser.parse_args()
    try:
        code_files.allow(arguments.code)
        torch.set_num_threads(threads())
        if torch.cuda.is_available():  # takes seconds, and CPUs do not need it
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(mode=True, warn_only=True)
            # Otherwise new tensors are filled with NaN, to find reads of uninitialised memory.
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        # torchrun sets LOCAL_RANK in its processes, whose launcher has noted all this.
        if "LOCAL_RANK" not in os.environ:
            note(torch=torch.__version__, device=_device(arguments), threads=threads())
        main(arguments)
    except UserError as error:
        _end(str(error), 2)
    except (Exception, SystemExit) as error:
        if (own := code_files.failure(error)) is not None:
            _end(own, 2)
        full = None if isinstance(error, SystemExit) else disk_space.shortage(error)
        if full is None:
            raise
        _end(full, disk_space.STATUS)


def _device(arguments: argparse.Namespace) -> str:
    """Return the name of the GPU or CPU that a stage computes on."""
    if getattr(arguments, "device", "cpu") != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return cpu_name()


def _end(sentence: str, status: int) -> NoReturn:
    with suppress(OSError):  # the log may be on the full disk
        sys.stderr.write(f"error: {sentence}\n")
        sys.stderr.flush()
    sys.exit(status)


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``out`` when the block ends without an exception.

    A killed stage leaves the old ``out`` or the whole new one; between two renames it leaves both,
    as .NAME.old and .NAME.partial. Where ``out`` is a link, the folder that it names is replaced.
    """
    out = out.resolve() if out.is_symlink() else out
    folder, old = (out.with_name(f".{out.name}.{state}") for state in ("partial", "old"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        folder.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
