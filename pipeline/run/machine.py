"""The cores and GPUs of this machine, and the number of stages that share them."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.errors import UserError
from pipeline.process import CUDA_GRAPHS, GPUS_PER_STAGE, flag, gpus_per_stage, positive, threads

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
CGROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """Return the number of cores that this process may use, at most the quota of its container."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0))
    return min(usable, _quota() or usable)


def _quota() -> int | None:
    """Return the CPUs that the control group grants, rounded up, by version 2 or 1, if it limits.

    Source: cgroup(7); ``docker run --cpus 2`` gives "200000 100000" microseconds.
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with suppress(OSError, ValueError):  # there is no such file; it says max
            text = " ".join((CGROUP / name).read_text(encoding="ascii") for name in names)
            quota, period = map(int, text.split())
            if quota > 0:  # -1 is no limit
                return math.ceil(quota / period)
    return None


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
    """Return the variables that are the same for all workers.

    Raises:
        UserError: one that a stage reads has a value that is not allowed.
    """
    flag(CUDA_GRAPHS)
    return dict.fromkeys(THREADS, str(threads())) | {"OMP_WAIT_POLICY": "PASSIVE"}
