"""The process of a stage: its threads, GPUs and processor, and the parent that it ends with."""

import ctypes
import os
import platform
import sys
from pathlib import Path

from pipeline.errors import UserError

GPUS_PER_STAGE = "SMS_GPUS_PER_STAGE"


def positive(variable: str, default: int) -> int:
    """Return the whole number in an environment variable, or ``default`` where it is unset.

    Raises:
        UserError: it is not a number, or below 1

    """
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{variable}={text}: give it a whole number from 1 up, or unset it")
    return int(text)


def threads() -> int:
    """Return the number of threads of a stage: ``SMS_THREADS``, or 1.

    Sums over several threads come in another order, so the default depends on nothing.
    """
    return positive("SMS_THREADS", 1)


def gpus_per_stage() -> int:
    """Return how many processes train together, one a GPU: ``SMS_GPUS_PER_STAGE``, or 1."""
    return positive(GPUS_PER_STAGE, 1)


def cpu_name() -> str:
    """Return the name of the processor, or of its architecture where the system has none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def die_with_parent(number: int) -> None:
    """Have the kernel send this process the signal ``number`` when its parent ends (Linux)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, number)
