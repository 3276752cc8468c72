"""Device and kernels: GPU or CPU, deterministic or fastest kernels, TF32 or full float32."""

import os

import torch

from pipeline.errors import UserError


def resolve_device(name: str) -> torch.device:
    """Return the device called ``name``; "auto" is the GPU where there is one.

    Raises: UserError for another name than auto, cpu and cuda, and for cuda without a GPU.
    """
    if name not in {"auto", "cpu", "cuda"}:
        raise UserError(f"device is {name!r}, but must be auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but PyTorch sees no GPU here: set it to auto or cpu")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def set_precision(device: torch.device, precision: str) -> None:
    """Set whether a GPU may use TF32 in products and convolutions of float32 tensors.

    TF32 rounds their inputs to 10 bits of mantissa (float32 has 23) and sums in float32. "fp32"
    forbids it, "tf32" and "bf16" allow it, for the rest of the process. PyTorch's own default
    allows it in convolutions and forbids it in matrix products.

    Source: NVIDIA A100 Tensor Core GPU Architecture, 2020, "TensorFloat-32".
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = precision != "fp32"
        torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"


def choose_kernels(device: torch.device, *, deterministic: bool) -> None:
    """Choose deterministic kernels on a GPU, or the fastest, for the rest of the process.

    The fastest are found by timing them, and some add in the order in which threads arrive: the
    last bits then differ from run to run. CPUs give equal bits either way.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        return
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic
    # Otherwise new tensors are filled with NaN first, to find reads of uninitialised memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
