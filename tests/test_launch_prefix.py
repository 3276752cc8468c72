"""SMS_LAUNCH with programs that stand for ``srun``; tests/test_slurm.py has SLURM itself."""

import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline.errors import UserError
from pipeline.run import launch_prefix
from pipeline.run.engines import choose
from pipeline.run.interfaces import Task
from pipeline.run.local import LocalEngine
from tests.test_ray import fill
from tests.test_run import Notes, diamond
from tests.toy import Toy, alive, alone, until

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's own
# Like srun: runs the command, notes how it was called, ends it at SIGTERM, and exits with 128 plus
# the number of the signal that ended it.
LIKE_SRUN = """#!/usr/bin/env python3
import os, signal, subprocess, sys
flags, command = sys.argv[1:3], sys.argv[3:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(f"{flags} {'CUDA_VISIBLE_DEVICES' in os.environ}\\n")
task = subprocess.Popen(command, start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: os.killpg(task.pid, signal.SIGKILL))
status = task.wait()
sys.exit(128 - status if status < 0 else status)
"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Toy]:
    alone(monkeypatch, tmp_path)
    launcher = tmp_path / "a launcher"
    launcher.write_text(LIKE_SRUN)
    launcher.chmod(0o755)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("SMS_PYTHON", sys.executable)
    monkeypatch.setenv("SMS_LAUNCH", f"{shlex.quote(str(launcher))} {{name}} c{{cpus}}g{{gpus}}")
    return lambda name: Toy(tmp_path / name)


@pytest.fixture
def toy(make: Callable[[str], Toy]) -> Toy:
    return make("toy")


def test_same_lock_events_and_logs_as_without(make: Callable[[str], Toy], tmp_path: Path) -> None:
    ours, local = make("ours"), make("local")
    heard = []
    for toy, engine in ((ours, None), (local, LocalEngine(local.root, 2, ()))):
        fill(toy)
        notes = Notes()
        assert set(toy.execute(listeners=[notes], engine=engine).ran) == set(toy.stages)
        heard.append(sorted(notes.heard, key=repr))
    assert ours.lock() == local.lock()
    assert heard[0] == heard[1]
    logs = [(toy.root / ".dvc/tmp/sms/logs/m.log").read_text() for toy in (ours, local)]
    assert logs[0] == logs[1] == "told\n"
    calls = sorted((tmp_path / "calls").read_text().splitlines())
    assert calls == sorted(f"{[name, 'c1g1']} False" for name in ours.stages)


def test_fields_are_the_stages_own() -> None:
    words = ["srun", "--job-name={name}", "-c{cpus}", "--gpus={gpus}", "a b"]
    needs = {"commands": (), "folder": Path(), "address": ""}
    task = Task(**needs, gpu=True, cpus=8, gpus=0.25)
    assert launch_prefix.fill(words, "s0-p1", task) == [
        *("srun", "--job-name=s0-p1", "-c8", "--gpus=1", "a b")
    ]
    assert launch_prefix.fill(words, "s0", Task(**needs, gpu=False))[3] == "--gpus=0"
    assert launch_prefix.fill(words, "s0", Task(**needs, gpu=True, gpus=8))[3] == "--gpus=8"


def test_failures_look_as_without(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    diamond(toy)
    toy.add("left", "zero", run="echo the reason; exit 3")
    toy.add("apart", run="kill -9 $$")
    shown = []
    for _ in range(2):
        summary = toy.execute()
        assert set(summary.failed) == {"left", "apart"}
        assert summary.skipped == ("join",)
        shown.append(sorted(capsys.readouterr().err.splitlines()))
        monkeypatch.delenv("SMS_LAUNCH", raising=False)
    assert shown[0] == shown[1]
    assert "left failed: exit status 3" in shown[0]
    assert any(line.startswith("apart failed: killed by signal 9") for line in shown[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_driver_leaves_no_process(toy: Toy, number: signal.Signals) -> None:
    """The launcher has a process group of its own, which only its handler of SIGTERM ends."""
    toy.add("done")
    toy.add("slow", "done", run="(sleep 60 & echo $! > pid; wait)")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with toy.driver() as driver:
            until((toy.root / "pid").exists)
            until((toy.root / "pid").read_text)
            driver.send_signal(number)
            _, shown = driver.communicate(timeout=60)
    finally:
        signal.signal(signal.SIGINT, before)
    until(lambda: not alive(int((toy.root / "pid").read_text())), 5)
    if number == signal.SIGINT:
        assert driver.returncode == 130
        assert "1 stages are done and kept, 1 are left" in shown
        assert yaml.safe_load(toy.lock())["stages"].keys() == {"done"}
    toy.ran()
    toy.add("slow", "done")
    toy.execute()
    assert toy.ran() == ["slow"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("srunn --ntasks=1", r"^SMS_LAUNCH begins with 'srunn', but there is no such program here"),
        ("sh 'a", r"^SMS_LAUNCH is .*, but must be a command line \(No closing quotation\)"),
        ("sh {cpu}", r"^SMS_LAUNCH has \{cpu\}, but must have no fields other than \{name\}, "),
    ],
)
def test_wrong_prefix_is_one_sentence(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, text: str, sentence: str
) -> None:
    toy.add("a")
    monkeypatch.setenv("SMS_LAUNCH", text)
    with pytest.raises(UserError, match=sentence) as error:
        toy.execute()
    assert "\n" not in str(error.value)
    assert toy.ran() == []


def test_prefix_and_ray_exclude_each_other(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.add("a")
    monkeypatch.setenv("SMS_ENGINE", "ray")
    with pytest.raises(UserError, match=r"^SMS_LAUNCH and SMS_ENGINE=ray are both set, but must "):
        toy.execute()
    monkeypatch.setenv("SMS_ENGINE", "local")
    monkeypatch.setenv("SMS_LAUNCH", "")
    engine = choose(toy.root, 1, 1)
    assert isinstance(engine, LocalEngine)
    assert engine.preload
