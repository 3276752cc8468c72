"""Process of a stage: number of threads and GPUs, name of the processor, end with the parent."""

import ctypes
import os
import platform
import sys
from pathlib import Path

from pipeline.errors import UserError

GPUS_PER_STAGE, CUDA_GRAPHS = "SMS_GPUS_PER_STAGE", "SMS_CUDA_GRAPHS"


def positive(variable: str, default: int) -> int:
    """Return the whole number in an environment variable, or ``default`` if it is unset.

    Raises:
        UserError: it is not a whole number of at least 1.
    """
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise UserError(
            f"{variable} is {text!r}, but must be a whole number >= 1: set or unset it."
        )
    return int(text)


def flag(variable: str) -> bool:
    """Return whether an environment variable is 1, or unset.

    Raises:
        UserError: it is neither 0 nor 1.
    """
    text = os.environ.get(variable) or "1"
    if text not in {"0", "1"}:
        raise UserError(f"{variable} is {text!r}, but must be 0 or 1: set or unset it.")
    return text == "1"


def threads() -> int:
    """Return the number of threads of a stage: ``SMS_THREADS``, or 1.

    The number changes the order of sums and so their last bits; the default is the same everywhere.
    """
    return positive("SMS_THREADS", 1)


def gpus_per_stage() -> int:
    """Return the number of processes of a training, one a GPU: ``SMS_GPUS_PER_STAGE``, or 1."""
    return positive(GPUS_PER_STAGE, 1)


def cpu_name() -> str:
    """Return the name of the processor, or else of its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def die_with_parent(number: int) -> None:
    """Let the kernel send this process the signal ``number`` when its parent ends (Linux)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, number)
