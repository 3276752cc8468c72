"""Regions of Markdown pages that a command writes: ``<!-- table: NAME -->`` to ``<!-- end -->``."""

import re
from pathlib import Path

from pipeline.errors import UserError
from pipeline.pages import card, stored
from pipeline.storage.atomic_files import atomic_file

TABLES = stored.TABLES | card.TABLES
REGION = re.compile(r"(<!-- table: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def pages(root: Path) -> list[Path]:
    """Return the pages that may hold tables."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def rendered(root: Path, page: Path) -> str:
    """Return the text of ``page`` with the tables as the stored results have them.

    Raises:
        UserError: a region has a name that no table has, or no end.
    """
    text = page.read_text(encoding="utf-8")
    if text.count("<!-- table: ") != len(REGION.findall(text)):
        raise UserError(f"{page}: every `<!-- table: NAME -->` needs its `<!-- end -->` below")

    def write(region: re.Match[str]) -> str:
        begin, name, _, end = region.groups()
        if name not in TABLES:
            known = ", ".join(sorted(TABLES))
            raise UserError(f"{page}: there is no table {name}: name one of {known}")
        return f"{begin}\n{TABLES[name](root)}\n{end}"

    return REGION.sub(write, text)


def update(root: Path) -> list[str]:
    """Write the pages whose tables differ from the stored results; return their names."""
    changed = []
    for page in pages(root):
        new = rendered(root, page)
        if new != page.read_text(encoding="utf-8"):
            with atomic_file(page) as temporary:
                temporary.write_text(new, encoding="utf-8")
            changed.append(page.relative_to(root).as_posix())
    card.figure(root)
    return changed
