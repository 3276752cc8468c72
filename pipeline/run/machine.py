"""What this machine has to share among stages: cores and GPUs."""

import os
import sys
from collections.abc import Mapping, Sequence
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
    """Return how many stages run at once: ``SMS_JOBS``, or one per core.

    Where ``SMS_GPUS_PER_STAGE`` processes train together each of them counts.
    """
    return positive("SMS_JOBS", max(1, cores() // gpus_per_stage()))


def gpus_per_stage() -> int:
    """Return how many processes train together, one a GPU: ``SMS_GPUS_PER_STAGE``, or 1.

    The stages that train read it themselves (pipeline/train/launch.py).
    """
    return positive("SMS_GPUS_PER_STAGE", 1)


def grouped(devices: Sequence[str], size: int) -> list[str]:
    """Return groups of ``size`` GPUs for one stage each, as CUDA_VISIBLE_DEVICES names them.

    Raises:
        UserError: there are GPUs, but not as many

    """
    if devices and len(devices) < size:
        raise UserError(
            f"SMS_GPUS_PER_STAGE={size}, but this process may use {len(devices)} GPUs: lower it"
        )
    whole = len(devices) // size * size
    return [",".join(devices[start : start + size]) for start in range(0, whole, size)]


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
