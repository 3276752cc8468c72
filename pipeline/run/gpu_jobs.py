"""The number of stages that share a GPU where ``SMS_GPU_JOBS`` does not say."""

from pipeline.process import gpus_per_stage

# A training of these on small images launches its kernels more slowly than a current GPU runs
# them, so that several take turns on it; every other network is taken to fill the card alone.
JOBS = {"resnet8": 4, "resnet20": 4}
PIXELS = 32  # a side, at most


def default_gpu_jobs(network: str, size: int | None) -> int:
    """Return the number for trainings of ``network`` on images of ``size`` pixels a side.

    It is 1 where several GPUs train one network together.
    """
    small = size is None or size <= PIXELS
    return JOBS.get(network, 1) if small and gpus_per_stage() == 1 else 1
