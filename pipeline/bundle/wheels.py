"""Downloads the wheels that a plain PyTorch installation lacks, for a Python and a platform."""

import re
import subprocess
import sys
from pathlib import Path

from pipeline.errors import UserError

# Packages that the graph needs beside PyTorch, torchvision and the scientific stack, which the
# machine must have (``EXPECTED`` in run.py). A bundle does not log to MLflow.
WANTED = ("dvc", "pydantic", "pyyaml", "rich", "ruamel.yaml", "ruamel.yaml.clib", "safetensors")
SOURCE_ONLY = ("antlr4-python3-runtime",)  # published without a wheel; pure Python

_LINUX = re.compile(r"manylinux_2_(\d+)_(\w+)")
_OLDEST = 5  # glibc 2.5, which manylinux1 means


def platforms(platform: str) -> list[str]:
    """Return the wheel tags that run where ``platform`` does, newest first.

    A Linux with glibc 2.N runs wheels for every older glibc, but pip compares tags as texts.

    Raises:
        UserError: ``platform`` is a Linux tag of another form than manylinux_2_N_ARCH.
    """
    match = _LINUX.fullmatch(platform)
    if match is None:
        if "linux" in platform:
            raise UserError(
                f"PLATFORM={platform}: must be manylinux_2_N_ARCH, such as "
                "manylinux_2_28_x86_64 for glibc 2.28 (`ldd --version` says which)"
            )
        return [platform]
    newest, machine = int(match[1]), match[2]
    versions = range(newest, _OLDEST - 1, -1)
    legacy = [name for name, at in (("2014", 17), ("2010", 12), ("1", 5)) if at <= newest]
    return [f"manylinux_2_{minor}_{machine}" for minor in versions] + [
        f"manylinux{name}_{machine}" for name in legacy
    ]


def download(
    folder: Path, python: str, platform: str, constraints: Path, more: tuple[str, ...]
) -> None:
    """Download the wheels of `WANTED`, ``more`` and their requirements into ``folder``.

    Versions are those of ``constraints``. Packages without a wheel are built here.

    Raises:
        UserError: pip cannot get one of them; the message has pip's.
    """
    tags = [word for tag in platforms(platform) for word in ("--platform", tag)]
    pinned = ["-c", str(constraints)]
    _pip("wheel", "--no-deps", "-w", str(folder), *pinned, *SOURCE_ONLY)
    _pip(
        "download", "--only-binary=:all:", "--implementation=cp", f"--python-version={python}",
        *tags, *pinned, "--find-links", str(folder), "-d", str(folder), *WANTED, *more,
    )  # fmt: skip


def _pip(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words, "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = " ".join(errors) or done.stderr.strip()[-300:] or "no reason given"
        raise UserError(f"pip {words[0]} failed: {reason}")
