"""A small selection of the fuzz campaigns, with a fixed seed (docs/trust.md has the whole ones)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.settings import check_sentence, check_text, put
from tests.fuzz.settings_campaign import in_process

ROOT = Path(__file__).parents[1]


def test_settings_are_planned_or_refused_in_one_sentence(tmp_path):
    outcomes, findings = in_process(tmp_path, seed=4, count=160)
    assert findings == {}
    for kind, counts in outcomes.items():
        assert counts["refused"] > 5, kind
        assert counts["planned"] > 1, kind


def test_damaged_files_are_read_or_refused():
    command = [sys.executable, "-m", "tests.fuzz", "readers", "--seed", "1", "--count", "84"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| (\D.*?) \| (\d+) \| (\d+) \| \d+ \| 0 \|$", done.stdout, re.MULTILINE)
    assert len(rows) > 15
    assert {int(files) for _, files, _ in rows} == {4}
    assert sum(int(refused) for _, _, refused in rows) > 30


def test_the_check_finds_what_it_should(tmp_path):
    """Two lines, no key, and another exception are findings."""
    for sentence in ("", "m is 3\nand more", "it is wrong", "m" * 3000, "m \x1b"):
        with pytest.raises(AssertionError):
            check_sentence(sentence, ["m"])
    check_sentence("m is 0, but must be in [1, 100]", ["m"])
    assert put({"a": {"b": 1}}, {"a.c": 2, "d.e": 3}) == {"a": {"b": 1, "c": 2}, "d": {"e": 3}}
    assert check_text(tmp_path, b"recipe: digits\nseed: 0\nm: 0\n") == "refused"
