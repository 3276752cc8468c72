"""What this machine has to share among stages: cores and GPUs."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UserError

THREADS = (
    "SMS_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def default_jobs() -> int:
    """Return how many stages run at once: ``SMS_JOBS``, or one per core."""
    return positive("SMS_JOBS", cores())


def positive(variable: str, default: int) -> int:
    """Return the whole number in an environment variable.

    Raises:
        UserError: it is not a number, or below 1

    """
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{variable}={text}: give it a whole number from 1 up, or unset it")
    return int(text)


def gpus(environment: Mapping[str, str]) -> list[str]:
    """Return the CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.replace(" ", "").split(",") if name and name != "-1"]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def shared_environment(threads: int) -> dict[str, str]:
    """Return the variables that are the same for all workers."""
    share = str(positive("SMS_THREADS", threads))
    return dict.fromkeys(THREADS, share) | {"OMP_WAIT_POLICY": "PASSIVE"}
