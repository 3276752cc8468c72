"""Measurements on a GPU: how many stages share it follows from what was measured on it."""

import argparse
import json
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks import card

STORED = """card,measure,network,way,jobs,mps,images_per_s
Fast,loop,resnet18,graph+compile,3.0,True,64000
Fast,loop,resnet18,graph+compile,1.0,True,44000
Fast,loop,resnet18,graph,2.0,True,90000
Slow,loop,resnet18,graph+compile,2.0,False,20000
"""


def shared(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, *lines: dict) -> str:
    """Return SMS_GPU_JOBS on the card ``name`` with these measurements in --out."""
    (folder / "card.csv").write_text(STORED)
    (folder / "first.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(card, "MEASURES", folder / "card.csv")
    monkeypatch.setattr(card, "_card", lambda: name)
    monkeypatch.setattr(card, "mps", nullcontext)
    monkeypatch.setenv("SMS_GPU_JOBS", "")
    options = argparse.Namespace(out=folder)
    with card.sharing(options, "resnet18", "graph+compile"):
        return os.environ["SMS_GPU_JOBS"]


@pytest.mark.parametrize(("name", "jobs"), [("Fast", "3"), ("Slow", "2"), ("Unknown", "3")])
def test_stored_measurements_count_on_their_own_card(tmp_path, monkeypatch, name, jobs):
    assert shared(tmp_path, name, monkeypatch) == jobs


def test_measurements_of_today_come_before_stored_ones(tmp_path, monkeypatch):
    line = {"measure": "loop", "network": "resnet18", "way": "graph+compile", "mps": True}
    today = [line | {"jobs": jobs, "images_per_s": 10.0 * jobs} for jobs in (1, 2, 4)]
    assert shared(tmp_path, "Fast", monkeypatch, *today) == "4"
    alone = line | {"jobs": 1, "images_per_s": 50.0}
    assert shared(tmp_path, "Fast", monkeypatch, alone) == "3", "nobody has tried two"
