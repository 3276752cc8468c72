"""The cores and GPUs of this machine, and the number of stages that share them."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import UserError
from pipeline.process import GPUS_PER_STAGE, gpus_per_stage, positive, threads

THREADS = (
    "SMS_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
# Trainings per GPU. On small images these networks launch kernels more slowly than a current GPU
# runs them, so that several share it; any other network fills the GPU alone.
GPU_JOBS = {"resnet8": 4, "resnet20": 4}
SMALL = 32  # pixels a side, at most


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def default_jobs() -> int:
    """Return how many stages run at once: ``SMS_JOBS``, or one per core.

    Where ``SMS_GPUS_PER_STAGE`` processes train together, each of them takes a core.
    """
    return positive("SMS_JOBS", max(1, cores() // gpus_per_stage()))


def default_gpu_jobs(network: str, size: int | None) -> int:
    """Return how many trainings of ``network`` on images of ``size`` pixels a side share a GPU.

    ``SMS_GPU_JOBS`` goes over it. It is 1 where several GPUs train one network together.
    """
    small = size is None or size <= SMALL
    return GPU_JOBS.get(network, 1) if small and gpus_per_stage() == 1 else 1


def demand(*, gpu: bool, gpu_jobs: int = 1) -> tuple[float, float]:
    """Return the CPUs of a stage, and its GPUs: a fraction of one where several stages share it.

    ``SMS_GPUS_PER_STAGE`` processes of ``SMS_THREADS`` threads train together, each on a GPU of
    its own; ``SMS_GPU_JOBS``, or else ``gpu_jobs``, stages share a GPU.
    """
    processes = gpus_per_stage() if gpu else 1
    shared = 1 if processes > 1 else positive("SMS_GPU_JOBS", gpu_jobs)
    return float(processes * threads()), processes / shared if gpu else 0.0


def grouped(devices: Sequence[str], size: int) -> list[str]:
    """Return groups of ``size`` GPUs for one stage each, as CUDA_VISIBLE_DEVICES names them.

    Raises:
        UserError: there are GPUs, but not as many.

    """
    if devices and len(devices) < size:
        raise UserError(
            f"{GPUS_PER_STAGE} is {size}, but must be at most {len(devices)}, the GPUs here"
        )
    whole = len(devices) // size * size
    return [",".join(devices[start : start + size]) for start in range(0, whole, size)]


def gpus(environment: Mapping[str, str]) -> list[str]:
    """Return the CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.replace(" ", "").split(",") if name and name != "-1"]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def shared_environment() -> dict[str, str]:
    """Return the variables that are the same for all workers."""
    return dict.fromkeys(THREADS, str(threads())) | {"OMP_WAIT_POLICY": "PASSIVE"}
