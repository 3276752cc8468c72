"""PyTorch and device of each result: recorded beside the lock file, and never a reason to run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pipeline.process import cpu_name
from pipeline.report.tables import made_by
from pipeline.run.local import LocalEngine
from pipeline.run.provenance import FILE, Provenance, provenance
from tests.toy import SOURCE, Toy, alone, python

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's own

ELSEWHERE = {"torch": "1.0", "device": "GPU of old", "threads": 1, "gpus": 2}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    alone(monkeypatch, tmp_path)
    return Toy(tmp_path / "toy")


def here() -> dict[str, Any]:
    return {"torch": torch.__version__, "device": cpu_name(), "threads": 1}


def reporting(toy: Toy, name: str, *reads: str, value: str = "", **fields: Any) -> None:
    """Add a stage that reports ``fields`` as the project's stages do; plain DVC does not ask."""
    (toy.root / f"{name}.json").write_text(json.dumps(fields) + "\n")
    report = f'if [ -n "$SMS_EVENTS" ]; then cat {name}.json >> $SMS_EVENTS; fi'
    toy.add(name, *reads, run=report, value=value)


def test_a_result_has_its_record_before_anything_names_it(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that is killed once the run cache has a stage has its record, too."""
    reporting(toy, "a", **here())
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from pipeline.run import dvc_graph\n"
        "from pipeline.run.driver import execute\n"
        "save = dvc_graph.save_run\n"
        "def killed(stage_cache, stage):\n"
        "    save(stage_cache, stage)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "dvc_graph.save_run = killed\n"
        "execute(Path.cwd(), 1)\n"
    )
    assert python(code, toy.root).returncode == -9
    assert toy.execute().cached == ("a",)
    assert provenance(toy.root) == {"a": here()}


def test_a_result_from_elsewhere_is_a_warning_and_stays(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    reporting(toy, "a", **ELSEWHERE)
    reporting(toy, "b", "a", **here())
    toy.add("silent")
    toy.execute()
    assert provenance(toy.root) == {"a": ELSEWHERE, "b": here()}
    assert "warning" not in capsys.readouterr().err  # made just now
    toy.ran()

    assert set(toy.execute().cached) == {"a", "b", "silent"}
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith(
        "warning: 1 of 3 cached results were made with another PyTorch, device"
    )
    assert f"a (torch 1.0, here {torch.__version__}; device GPU of old, here " in sentence
    assert "gpus 2, here 1" in sentence
    assert toy.ran() == []


def test_equal_results_say_nothing_and_threads_count(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reporting(toy, "a", **here())
    for _ in range(2):
        toy.execute()
        assert capsys.readouterr().err == ""
    monkeypatch.setenv("SMS_THREADS", "2")
    toy.execute()
    assert "a (threads 1, here 2)" in capsys.readouterr().err


def test_devices_of_another_cluster_are_not_compared(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reporting(toy, "a", **here() | {"device": "GPU of the cluster"})
    toy.execute()
    monkeypatch.setenv("SMS_ENGINE", "ray")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    toy.execute(engine=LocalEngine(toy.root, 1))
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("RAY_ADDRESS")  # on this machine
    toy.execute(engine=LocalEngine(toy.root, 1))
    assert "device GPU of the cluster, here " in capsys.readouterr().err


def test_records_come_back_with_results(toy: Toy) -> None:
    """An experiment of other settings, and back; then a clone without the records' file."""
    reporting(toy, "a", **here(), value="one")
    toy.execute()
    first = (toy.root / FILE).read_bytes()
    reporting(toy, "a", **ELSEWHERE, value="two")
    toy.execute()
    assert provenance(toy.root) == {"a": ELSEWHERE}
    reporting(toy, "a", **ELSEWHERE, value="one")
    assert toy.execute().cached == ("a",)
    assert (toy.root / FILE).read_bytes() == first
    (toy.root / FILE).unlink()
    toy.execute()
    assert (toy.root / FILE).read_bytes() == first


def test_the_lock_of_plain_dvc_is_the_same_and_its_results_are_unknown(toy: Toy) -> None:
    reporting(toy, "a", **ELSEWHERE)
    toy.execute()
    ours = toy.lock()
    (toy.root / "stages" / "dvc.lock").unlink()
    shutil.rmtree(toy.root / ".dvc" / "cache")
    toy.dvc("reproduce")
    assert toy.lock() == ours
    reporting(toy, "a", **ELSEWHERE, value="by plain DVC")
    toy.dvc("reproduce")
    assert provenance(toy.root) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": {"output": "0"}}'])
def test_damaged_records_are_no_records(toy: Toy, text: str) -> None:
    reporting(toy, "a", **here())
    (toy.root / FILE).write_text(text)
    toy.execute()
    assert provenance(toy.root) == {"a": here()}


def test_a_stage_reports_what_computes_it(tmp_path: Path) -> None:
    flags = ["--name", "digits", "--out", str(tmp_path / "data")]
    own = {"SMS_EVENTS": str(tmp_path / "events"), "SMS_THREADS": "3"}
    command = [sys.executable, "-m", "stages.prepare", *flags]
    done = subprocess.run(
        command, cwd=SOURCE, env=os.environ | own, capture_output=True, text=True, check=True
    )
    (event,) = (tmp_path / "events").read_text().splitlines()
    assert json.loads(event) == here() | {"threads": 3}
    assert "torch" not in done.stdout
    files = [file for file in (tmp_path / "data").rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert torch.__version__.encode() not in file.read_bytes()


class Page:
    """The part of the results that the line is about."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows = rows


def test_the_report_names_torch_and_device() -> None:
    rows = pd.DataFrame({"model": ["a", "b", "c"], "test_score": [0.9, 0.8, None]})
    alike = made_by.with_makers(rows, dict.fromkeys("abc", ELSEWHERE))
    assert alike["torch"].tolist()[:2] == ["1.0", "1.0"]
    assert alike["device"].isna().tolist() == [False, False, True]
    assert made_by.line(Page(alike)) == "\nComputed with torch 1.0 on GPU of old.\n"  # type: ignore[arg-type]
    mixed = made_by.with_makers(rows, {"a": ELSEWHERE})
    assert mixed["device"].tolist()[:2] == ["GPU of old", "unknown"]
    text = made_by.line(Page(mixed))  # type: ignore[arg-type]
    assert "torch 1.0 on GPU of old (1 result), an unknown version of torch (1 result)" in text


@pytest.mark.parametrize(("status", "names"), [(0, ["A100", "H100"]), (1, [])])
def test_gpus_are_those_that_nvidia_smi_lists_without_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, names: list[str]
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf 'H100\\nA100\\nH100\\n'\nexit {status}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert object.__new__(Provenance)._gpu_names == names
