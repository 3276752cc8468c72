"""Both ways to SLURM, on a cluster of two nodes on this machine."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests import slurm
from tests.test_ray import fill, short_folder
from tests.test_run import Notes, diamond
from tests.toy import SOURCE, Toy, alive, alone, until

pytestmark = [
    pytest.mark.extras,
    pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning"),  # DVC's own
]
SRUN = "srun --ntasks=1 --cpus-per-task={cpus} --gpus={gpus} --job-name={name}"
DRIVER = """
import sys
from pathlib import Path
from pipeline.run.driver import execute
sys.exit(bool(execute(Path.cwd()).failed))
"""
SCRIPT = SOURCE / "deploy" / "slurm.sbatch"


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with slurm.cluster() as environment:
        yield environment


@pytest.fixture
def make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> Callable[[str], Toy]:
    alone(monkeypatch, tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SMS_PYTHON", sys.executable)
    return lambda name: Toy(tmp_path / name)


@pytest.fixture
def toy(make: Callable[[str], Toy], monkeypatch: pytest.MonkeyPatch) -> Toy:
    monkeypatch.setenv("SMS_LAUNCH", SRUN)
    return make("toy")


def test_a_job_for_each_stage(
    make: Callable[[str], Toy], monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    """Lock, events and logs are those without SLURM, and SLURM names jobs and gives the GPUs."""
    ours, plain = make("ours"), make("plain")
    for toy in (ours, plain):
        fill(toy)
        toy.add("seen", run="echo $SLURM_JOB_NAME $CUDA_VISIBLE_DEVICES > seen.txt")
    monkeypatch.setenv("SMS_LAUNCH", SRUN)
    notes = Notes()
    assert set(ours.execute(4, listeners=[notes]).ran) == set(ours.stages)
    monkeypatch.delenv("SMS_LAUNCH")
    plain.dvc("reproduce")
    assert ours.lock() == plain.lock()
    assert (ours.root / "seen.txt").read_text() in ("seen 0\n", "seen 1\n")
    assert (ours.root / ".dvc/tmp/sms/logs/m.log").read_text() == "told\n"
    told = [note[2] for note in notes.heard if note[:2] == ("event", "told")]
    assert told == [{"epoch": 1}, {"epoch": 2}]
    slurm.idle(environment)


def test_a_failed_job_is_a_failed_stage(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    diamond(toy)
    toy.add("left", "zero", run="echo the reason; exit 3")
    toy.add("apart", run="kill -9 $$")
    summary = toy.execute(4)
    assert (set(summary.failed), summary.skipped) == ({"left", "apart"}, ("join",))
    shown = capsys.readouterr().err
    assert "left failed: exit status 3\n" in shown
    assert "    the reason\n" in shown
    assert "apart failed: killed by signal 9, as the kernel does where memory runs out\n" in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_driver_leaves_no_job(
    toy: Toy, number: signal.Signals, environment: dict[str, str]
) -> None:
    """Neither one that runs nor one that waits for the CPUs of the two that run."""
    for name in ("a", "b", "c", "d", "e"):
        toy.add(name, run=f"sleep 60 & echo $! > {name}.pid; wait")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with toy.driver(5) as driver:
            until(
                lambda: len(list(toy.root.glob("*.pid"))) == 4 and len(slurm.jobs(environment)) == 5
            )
            driver.send_signal(number)
            _, shown = driver.communicate(timeout=60)
    finally:
        signal.signal(signal.SIGINT, before)
    if number == signal.SIGINT:
        assert driver.returncode == 130
        assert "0 stages are done and kept, 5 are left" in shown
    slurm.idle(environment)
    for file in toy.root.glob("*.pid"):
        assert not alive(int(file.read_text()))
    assert len(toy.ran()) == 4


def submit(toy: Toy, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the script on two nodes, where ``dvc`` is this Python's."""
    dvc = toy.root / ".venv" / "bin" / "dvc"
    dvc.parent.mkdir(parents=True, exist_ok=True)
    dvc.write_text(f'#!/bin/sh\nexec {sys.executable} -m dvc "$@"\n')
    dvc.chmod(0o755)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["sbatch", "--wait", "--nodes=2", "--gpus-per-node=2", str(SCRIPT), *words],
        cwd=toy.root,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def logs(toy: Toy) -> str:
    return "".join(file.read_text() for file in sorted(toy.root.glob("soups-*.log")))


def test_ray_on_the_nodes_of_a_job(
    make: Callable[[str], Toy], monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    """Four stages wait for each other, which ends only on the four GPUs and CPUs of both nodes."""
    ours, plain = make("ours"), make("plain")
    begun = " -a ".join(f"-e {name}.begun" for name in "abcd")
    for toy in (ours, plain):
        fill(toy)
        for name in "abcd":
            wait = f'(test -z "$SMS_EVENTS" || until test {begun}; do sleep 0.1; done)'
            toy.add(name, run=f"touch {name}.begun; {wait}; echo $CUDA_VISIBLE_DEVICES >> gpus")
    (ours.root / "driver.py").write_text(DRIVER)
    stage = {"cmd": f"{sys.executable} driver.py"}
    (ours.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"soups": stage}}))
    with short_folder():
        done = submit(ours)
        assert done.returncode == 0, logs(ours)
        slurm.idle(environment)
    plain.dvc("reproduce")
    assert ours.lock() == plain.lock()
    assert sorted((ours.root / "gpus").read_text().split()) == ["0", "0", "1", "1"]
    assert ours.ran() == sorted(ours.stages.keys() - {"m"}), "each once"


def put_ray(toy: Toy, text: str) -> None:
    """Put a program in the place of ``ray``."""
    ray = toy.root / ".venv" / "bin" / "ray"
    ray.parent.mkdir(parents=True)
    ray.write_text(f"#!/bin/sh\n{text}\n")
    ray.chmod(0o755)


def test_script_ends_as_its_command(
    make: Callable[[str], Toy], environment: dict[str, str]
) -> None:
    toy = make("toy")
    start = "touch up$SLURM_NODEID; exec sleep 60"
    put_ray(
        toy, f'echo "$SLURM_NODEID did $*"; case $1 in start) {start};; esac; test -e up0 -a -e up1'
    )
    assert submit(toy, "sh", "-c", "echo $SMS_ENGINE of $0; exit 7", "this").returncode == 7
    assert "ray of this\n" in logs(toy)
    assert "0 did start --head --port " in logs(toy)
    assert "1 did start --address " in logs(toy)
    slurm.idle(environment)


def test_script_says_why_ray_does_not_start(
    make: Callable[[str], Toy], environment: dict[str, str]
) -> None:
    toy = make("toy")
    put_ray(toy, "echo no Ray here; exit 1")
    assert submit(toy, "touch", "ran").returncode == 1
    assert "no Ray here\n" in next(toy.root.glob("soups-*[0-9].log")).read_text()
    assert not (toy.root / "ran").exists()
