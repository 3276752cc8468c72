"""Library of the kernels: sparse_conv.c, compiled for this CPU, cached and loaded by ctypes."""

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.errors import UserError

SOURCE = Path(__file__).with_name("sparse_conv.c")
COMPILERS = ("cc", "gcc", "clang")  # after $CC
COMMON = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno")
FLAGS = {
    "avx512": (
        *("-DVL=16", "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mavx2", "-mfma"),
        "-mprefer-vector-width=512",
    ),
    "avx2": ("-DVL=8", "-mavx2", "-mfma"),
    "scalar": ("-DVL=4",),
}
VECTOR = {"avx512": 16, "avx2": 8, "scalar": 4}  # floats
VARIABLE = "SMS_INFERENCE_ISA"
CACHE_VARIABLE = "SMS_INFERENCE_CACHE"
MEND = "install gcc or clang, or set CC to a C compiler"


class Step(ctypes.Structure):
    """A step of the C program: the struct ``step`` of sparse_conv.c."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "channels", "out_channels", "chunks")),
        *((name, ctypes.c_int32) for name in ("tiles", "stride", "height", "width", "block")),
        *((name, ctypes.c_int32) for name in ("in_pitch", "out_pitch", "io", "maximum")),
        *((name, ctypes.c_int32) for name in ("stride_y", "ahead")),
        *((name, ctypes.c_float) for name in ("low", "high")),
        *((name, ctypes.c_int64) for name in ("source", "target", "residual")),
        *((name, ctypes.c_int64) for name in ("in_plane", "out_plane")),
        *((name, ctypes.c_void_p) for name in ("entries", "rows", "tile", "mask", "scale")),
        *((name, ctypes.c_void_p) for name in ("shift", "window", "weights")),
    )


@dataclass(frozen=True)
class Library:
    """The loaded library: its instruction set and the C function ``run``."""

    isa: str
    run: "ctypes._NamedFuncPointer"

    @property
    def vector(self) -> int:
        """Floats of a vector."""
        return VECTOR[self.isa]


def best_isa() -> str:
    """Return the widest instruction set of this CPU, or the one that SMS_INFERENCE_ISA forces.

    Raises:
        UserError: the variable names an instruction set that does not exist or that the CPU lacks.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    usable = ["scalar"]
    if capability in {"AVX2", "AVX512"}:
        usable.append("avx2")
    if capability == "AVX512":
        usable.append("avx512")
    forced = os.environ.get(VARIABLE)
    if forced is not None and forced not in usable:
        raise UserError(
            f"{VARIABLE} is {forced!r} but must be one of {', '.join(usable)} on this CPU: "
            "set one of these, or unset it."
        )
    return forced or usable[-1]


def library() -> Library | None:
    """Return the library for this CPU; where it cannot be made None, and one warning a process."""
    made = _library(best_isa(), os.environ.get("CC"), os.environ.get(CACHE_VARIABLE))
    if isinstance(made, str):
        _warn(made)
        return None
    return made


def required_library() -> Library:
    """Return the library for this CPU.

    Raises:
        UserError: there is no C compiler, it fails, or the kernels cannot be kept.
    """
    made = _library(best_isa(), os.environ.get("CC"), os.environ.get(CACHE_VARIABLE))
    if isinstance(made, str):
        raise UserError(made)
    return made


@functools.cache
def _library(isa: str, named: str | None, cache: str | None) -> Library | str:
    """Return the library, or why there is none and how to mend it."""
    compiler = _compiler(named)
    if compiler is None:
        return f"{f'the C compiler CC={named}' if named else 'a C compiler'} was not found: {MEND}"
    try:
        with tempfile.TemporaryDirectory() as private:
            folder = Path(cache or _user_cache() or private)
            return Library(isa, _run(built(isa, compiler, folder)))
    except subprocess.CalledProcessError as error:
        reason = str(error.stderr or error).strip()[-300:]
        return f"{shlex.join(compiler)} cannot compile {SOURCE.name} ({reason}): {MEND}"
    except OSError as error:
        return f"compiled kernels cannot be kept ({error}): set {CACHE_VARIABLE} to another folder"


def built(isa: str, compiler: Sequence[str], folder: Path) -> Path:
    """Return the library in ``folder``, compiled first if it is missing or damaged.

    The file's name has a hash over source, flags and compiler. It is written under another name and
    renamed, so that several processes may compile it at once. Its last 32 bytes are the SHA-256 of
    the others.

    Raises:
        subprocess.CalledProcessError: the compiler failed.
        OSError: the folder cannot be written to.
    """
    command = [*compiler, *COMMON, *FLAGS[isa]]
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True).stdout
    key = hashlib.sha256(SOURCE.read_bytes() + version + " ".join(command).encode()).hexdigest()
    path = folder / f"sparse_conv-{isa}-{key[:16]}.so"
    if not _whole(path):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            new = Path(temporary, path.name)
            subprocess.run(
                [*command, str(SOURCE), "-o", str(new)], capture_output=True, check=True, text=True
            )
            with new.open("ab") as file:
                file.write(hashlib.sha256(new.read_bytes()).digest())
            os.replace(new, path)  # noqa: PTH105 - the documented atomic rename
    return path


def _whole(path: Path) -> bool:
    """Say whether ``path`` ends with the hash of its other bytes (loaders ignore the end)."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


def _run(path: Path) -> "ctypes._NamedFuncPointer":
    function = ctypes.CDLL(str(path)).run
    pointers = ctypes.POINTER(ctypes.c_void_p)
    function.argtypes = (
        *(ctypes.POINTER(Step), ctypes.c_int32, ctypes.c_void_p, pointers, ctypes.c_int32),
    )
    function.restype = None
    return function


def _compiler(named: str | None) -> list[str] | None:
    """Return the words of the compiler's command; ``named`` may have flags ("gcc -m64")."""
    commands = [named.split()] if named else [[name] for name in COMPILERS]
    found = ([path, *words[1:]] for words in commands if words and (path := shutil.which(words[0])))
    return next(found, None)


def _user_cache() -> Path | None:
    """Return the user's folder for kernels; None without a home, as in some containers."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(base, "sparse-model-soups")


@functools.cache
def _warn(reason: str) -> None:
    warnings.warn(f"compiled networks run as dense PyTorch operations: {reason}.", stacklevel=4)
