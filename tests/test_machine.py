"""Cores that a container grants, and switches in the environment."""

import os
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.run import machine
from pipeline.run.machine import cores
from pipeline.track.tracker import Tracker


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({}, 64),
    ],
)
def test_cores_are_at_most_the_quota_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], granted: int
) -> None:
    """As docker run --cpus sets it, which leaves the affinity as it is."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert cores() == granted


@pytest.mark.parametrize("text", ["off", "false", "2"])
def test_switches_are_0_or_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SMS_MLFLOW", text)
    with pytest.raises(UserError, match=f"SMS_MLFLOW is '{text}', but must be 0 or 1"):
        Tracker(tmp_path)
    monkeypatch.setenv("SMS_CUDA_GRAPHS", text)
    with pytest.raises(UserError, match=f"SMS_CUDA_GRAPHS is '{text}', but must be 0 or 1"):
        machine.shared_environment()
