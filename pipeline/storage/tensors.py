"""Safetensors files: written atomically, read without running code."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pipeline.errors import UserError
from pipeline.storage.atomic_files import atomic_file

AGAIN = "run `dvc repro` if a stage makes it, or save it again"
BROKEN = (  # what reading the header of a damaged or foreign file may raise
    *(ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError),
    *(TypeError, ValueError),
)


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write ``tensors``, and at most one entry of ``metadata``, as a safetensors file.

    Equal tensors give equal bytes (several metadata entries would be written in a random order).
    """
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # that of a new file; save_file would allow its owner only
        save_file(contiguous, temporary, metadata)
        temporary.chmod(mode)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of any safetensors file.

    Raises:
        UserError: the file is missing, truncated or not safetensors.
    """
    return read(path)[0]


def read(
    path: Path, names: Iterable[str] | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, or those of ``names``, and its metadata.

    Raises:
        UserError: the file is missing, truncated or not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            wanted = file.keys() if names is None else names
            tensors = {name: file.get_tensor(name) for name in wanted}
            return tensors, file.metadata() or {}
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: {AGAIN}.") from error
    except (SafetensorError, OSError, *BROKEN) as error:
        raise damaged(path, error) from error


def damaged(path: Path, cause: BaseException | None = None) -> UserError:
    """Return the error for a damaged file, or one that the ``cause`` says is too large."""
    if isinstance(cause, MemoryError) or "not enough memory" in str(cause):
        return UserError(
            f"{path} is damaged or does not fit into memory: free memory and read it again, or "
            f"delete it, then {AGAIN}."
        )
    return UserError(f"{path} is truncated or not a safetensors file: delete it, then {AGAIN}.")
