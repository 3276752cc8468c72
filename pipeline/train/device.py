"""Where to compute, and by which kernels."""

import os

import torch

from pipeline.errors import UserError


def resolve_device(name: str) -> torch.device:
    """Return the device called ``name``; "auto" is the GPU where there is one.

    Raises: UserError for another name than auto, cpu and cuda, and for cuda without a GPU.
    """
    if name not in {"auto", "cpu", "cuda"}:
        raise UserError(f"device is {name!r}: choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but PyTorch sees no GPU here: set it to auto or cpu")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def choose_kernels(device: torch.device, *, deterministic: bool) -> None:
    """Have a GPU compute by deterministic kernels, or by the fastest, for the rest of the process.

    The fastest are found by timing them, and some add in the order in which threads arrive: the
    last bits then differ from run to run. CPUs give equal bits either way.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        return
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic
    # Else every new tensor is filled with NaN first, to find reads of memory that nobody wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
