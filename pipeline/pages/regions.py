"""Replaces the generated regions of pages: ``<!-- table: NAME -->`` to ``<!-- end -->``."""

import re
from pathlib import Path

from pipeline.errors import UserError
from pipeline.pages import converged, faults, gpu, inference, stored, studies
from pipeline.storage.atomic_files import atomic_file

PAGES = (stored, gpu, inference, studies, faults, converged)
TABLES = {name: write for page in PAGES for name, write in page.TABLES.items()}
REGION = re.compile(r"(<!-- table: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def pages(root: Path) -> list[Path]:
    """Return README.md and the pages of docs/."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def rendered(root: Path, page: Path) -> str:
    """Return the text of ``page`` with its tables generated from the stored results.

    Raises:
        UserError: a region has no end, or its name is no key of TABLES.
    """
    text = page.read_text(encoding="utf-8")
    if text.count("<!-- table: ") != len(REGION.findall(text)):
        raise UserError(f"{page}: every `<!-- table: NAME -->` needs its `<!-- end -->` below")

    def write(region: re.Match[str]) -> str:
        begin, name, _, end = region.groups()
        if name not in TABLES:
            known = ", ".join(sorted(TABLES))
            raise UserError(f"{page}: there is no table {name}: use one of {known}")
        return f"{begin}\n{TABLES[name](root)}\n{end}"

    return REGION.sub(write, text)


def update(root: Path) -> list[str]:
    """Write the pages whose tables have changed, and the figure; return the names of the pages."""
    changed = []
    for page in pages(root):
        new = rendered(root, page)
        if new != page.read_text(encoding="utf-8"):
            with atomic_file(page) as temporary:
                temporary.write_text(new, encoding="utf-8")
            changed.append(page.relative_to(root).as_posix())
    gpu.draw_phases(root)
    return changed
