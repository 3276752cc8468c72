"""The command line of every stage: threads, determinism, clean errors, atomic outputs."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import torch

from pipeline.errors import UserError
from pipeline.events import note
from pipeline.process import cpu_name, threads
from pipeline.storage import disk_space


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the command line and call ``main`` with the machine set up for equal bits.

    One thread unless ``SMS_THREADS`` says otherwise: sums over several threads come in another
    order, so the number of threads is part of what makes two runs equal. A `UserError` ends the
    process with one sentence on standard error and exit status 2, a full disk with that of
    `pipeline.storage.disk_space`.
    """
    arguments = parser.parse_args()
    try:
        torch.set_num_threads(threads())
        if torch.cuda.is_available():  # the switch takes seconds, and the CPU does not need it
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(mode=True, warn_only=True)
            # Else every new tensor is filled with NaN first, to find reads of unwritten memory.
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        if "LOCAL_RANK" not in os.environ:  # torchrun's; what started it has said so already
            note(torch=torch.__version__, device=_device(arguments), threads=threads())
        main(arguments)
    except UserError as error:
        _end(str(error), 2)
    except Exception as error:
        sentence = disk_space.shortage(error)
        if sentence is None:
            raise
        _end(sentence, disk_space.STATUS)


def _device(arguments: argparse.Namespace) -> str:
    """Return the name of the hardware that a stage computes on."""
    if getattr(arguments, "device", "cpu") != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return cpu_name()


def _end(sentence: str, status: int) -> NoReturn:
    with suppress(OSError):  # the log may lie on the full disk
        sys.stderr.write(f"error: {sentence}\n")
        sys.stderr.flush()
    sys.exit(status)


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
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
