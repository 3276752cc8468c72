"""The text of stages/dvc.lock, entry by entry: parsing all of it as YAML takes seconds."""

import re
from pathlib import Path

HEADER = "schema: '2.0'\nstages:\n"


def entries(text: str) -> dict[str, str] | None:
    """Return the text of each stage's entry; None for a file that is not as DVC writes it."""
    head, *parts = re.split(r"^  (\S+):\n", text.removeprefix(HEADER), flags=re.MULTILINE)
    if text and (head or not text.startswith(HEADER)):
        return None
    return {
        name.strip("'\""): f"  {name}:\n{entry}"
        for name, entry in zip(parts[::2], parts[1::2], strict=True)
    }


def outputs(file: Path) -> dict[str, str]:
    """Return the hash of each stage's first output, as far as ``file`` has one."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    parts = {
        name: entry.partition("\n    outs:\n")[2] for name, entry in (entries(text) or {}).items()
    }
    hashes = {
        name: re.search(r"^      md5: (\S+)$", part, re.MULTILINE) for name, part in parts.items()
    }
    return {name: match[1] for name, match in hashes.items() if match}
