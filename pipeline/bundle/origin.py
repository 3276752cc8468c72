"""The origin of results: the commit, the golden numbers, the card and its software."""

import hashlib
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

GOLDEN = Path("tests/golden")


def golden(root: Path) -> str:
    """Return a hash of the golden numbers; commits with equal hashes give equal results."""
    digest = hashlib.sha256()
    for path in sorted((root / GOLDEN).glob("*")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def commit(root: Path) -> str:
    """Return the commit at ``root``, with a plus where files differ from it; empty without git."""
    head = _git(root, "rev-parse", "--short=10", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return head and head + ("+" if changed else "")


def machine() -> dict[str, Any]:
    """Return the card of this machine (or the word CPU), and versions of torch, CUDA and Python."""
    import torch  # noqa: PLC0415 - takes seconds, and other commands do not need it

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {
        "card": card,
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "",
        "python": platform.python_version(),
        "platform": sys.platform,
    }


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
