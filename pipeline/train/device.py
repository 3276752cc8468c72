"""Where to compute."""

import torch

from pipeline.errors import UserError


def pick(name: str) -> torch.device:
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
