"""Environment variables: the tables of docs/settings.md have all that the code reads or sets."""

import re

from tests.project import ROOT


def test_the_tables_are_complete():
    files = [
        *(ROOT / "pipeline").rglob("*.py"),
        *(ROOT / "stages").glob("*.py"),
        ROOT / "stages/run",
    ]
    used = {name for file in files for name in re.findall(r"\bSMS_[A-Z_]+", file.read_text())}
    page = (ROOT / "docs/settings.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert len(used) >= 10
    assert sorted(rows) == sorted(used)
