"""``dvc queue start`` with the Ray engine: experiments that share one cluster."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.test_ray import processes, short_folder
from tests.toy import SOURCE, Toy, alone

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's own
DRIVER = """
import sys
from pathlib import Path
from pipeline.run.driver import execute
sys.exit(bool(execute(Path.cwd()).failed))
"""
VALUES = ("1", "2")


def run(root: Path, *command: str) -> str:
    """Run ``command`` in ``root`` and return what it printed."""
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fill(toy: Toy, begun: Path) -> None:
    """Add a graph that reads ``value``, and whose experiments wait for each other."""
    (toy.root / "params.yaml").write_text("value: 0\n")
    files = " -a ".join(f"-e {begun}/{value}" for value in VALUES)
    wait = f'(test -z "$SMS_EVENTS" || until test {files}; do sleep 0.1; done)'
    toy.add("a", run=f"touch {begun}/$(cut -c8 params.yaml); {wait}")
    toy.add("b")
    toy.add("c", "a", "b")
    toy.stages["a"]["cmd"] += " && cat params.yaml >> artifacts/a/value"
    toy.stages["a"]["deps"] += ["params.yaml"]
    toy.write()
    (toy.root / "stages" / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    (toy.root / "driver.py").write_text(DRIVER)
    command = f"{sys.executable} driver.py"
    soups = {"cmd": command, "params": ["value"], "always_changed": True}
    (toy.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"soups": soups}}))
    run(toy.root, "git", "add", "-A")
    run(toy.root, "git", "commit", "-q", "-m", "test")


def locks(toy: Toy) -> dict[str, str]:
    """Return the locks of the graph of all experiments that have ended, by name."""
    refs = run(toy.root, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    experiments = {ref.rpartition("/")[2]: ref for ref in refs if ref.count("/") == 4}
    return {
        name.removeprefix("of-"): run(toy.root, "git", "show", f"{ref}:stages/dvc.lock")
        for name, ref in experiments.items()
        if name.startswith("of-")
    }


def log(toy: Toy, value: str) -> str:
    """Return what an experiment printed, if it did."""
    logs = ["dvc", "queue", "logs", f"of-{value}"]
    return subprocess.run(logs, cwd=toy.root, capture_output=True, text=True, check=False).stdout


@pytest.mark.extras
def test_queued_experiments_share_one_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two experiments at the same time join one cluster; their locks are the serial ones."""
    alone(monkeypatch, tmp_path)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.org")
    dvc = tmp_path / "bin" / "dvc"  # `dvc queue` looks for it on the PATH
    dvc.parent.mkdir()
    dvc.write_text(f'#!/bin/sh\nexec {sys.executable} -m dvc "$@"\n')
    dvc.chmod(0o755)
    monkeypatch.setenv("PATH", str(dvc.parent), prepend=":")
    begun = tmp_path / "begun"
    begun.mkdir()
    ours, plain = Toy(tmp_path / "ours"), Toy(tmp_path / "plain")
    for toy in (ours, plain):
        fill(toy, begun)
    serial = {}
    for value in VALUES:
        (plain.root / "params.yaml").write_text(f"value: {value}\n")
        plain.dvc("reproduce")
        serial[value] = plain.lock().decode()
        (begun / value).unlink()
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    monkeypatch.setenv("SMS_ENGINE", "ray")
    monkeypatch.setenv("SMS_JOBS", "2")
    clusters = set()
    with short_folder() as folder:
        for value in VALUES:
            run(
                ours.root,
                "dvc",
                "exp",
                "run",
                "--queue",
                "-n",
                f"of-{value}",
                "-S",
                f"value={value}",
            )
        start = ["dvc", "queue", "start", "-j", "2"]  # its workers keep its output open
        subprocess.run(start, cwd=ours.root, stdout=subprocess.DEVNULL, check=True)
        deadline = time.monotonic() + 240
        while len(locks(ours)) < len(VALUES):
            status = run(ours.root, "dvc", "queue", "status")
            if "Failed" in status or time.monotonic() > deadline:
                pytest.fail("\n".join([status, *(log(ours, value) for value in VALUES)]))
            clusters |= {pid for pid, words in processes(folder).items() if "gcs_server" in words}
            time.sleep(0.5)
    assert locks(ours) == serial
    assert len(clusters) == 1
    assert serial["1"] != serial["2"]
