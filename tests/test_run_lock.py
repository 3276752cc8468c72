"""Before the stages: one run at a time writes the graph; folders are those of the project."""

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.errors import UserError
from pipeline.repro import repro, write_plan
from pipeline.run.run_lock import only_run
from tests.project import ROOT

LOCK = Path(".dvc/tmp/sms/driver.lock")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the project's params.yaml and no graph yet."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "stages").mkdir()
    (tmp_path / LOCK).parent.mkdir(parents=True)
    set_m(tmp_path, 3)
    return tmp_path


def set_m(checkout: Path, m: int) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    (checkout / "params.yaml").write_text(yaml.safe_dump(params | {"m": m}))


@contextmanager
def another_run(checkout: Path) -> Iterator[None]:
    with (checkout / LOCK).open("w") as file:
        file.write("4711\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_the_graph_of_another_run_stays_as_it_is(checkout: Path) -> None:
    """Neither a second run nor a command that plans changes it; without an edit all may plan."""
    write_plan(checkout)
    graph = checkout / "stages" / "dvc.yaml"
    text = graph.read_text()
    with another_run(checkout):
        write_plan(checkout)
        set_m(checkout, 2)
        for command in (repro, write_plan):
            with pytest.raises(UserError, match=r"another run is at work .*process 4711"):
                command(checkout)
            assert graph.read_text() == text
    write_plan(checkout)
    assert graph.read_text() != text


def test_files_that_another_run_is_writing_stay(checkout: Path) -> None:
    """Its process may live in another container, where its number means another process."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    file = checkout / "stages" / f".dvc.lock.{ended.pid}.tmp"
    file.touch()
    with another_run(checkout), pytest.raises(UserError, match="another run is at work"):
        repro(checkout)
    assert file.exists()


def test_a_process_that_inherits_the_lock_holds_it_too(tmp_path: Path) -> None:
    """As dvc does where the process that started it in a bundle was killed."""
    path, wait = tmp_path / "lock", [sys.executable, "-c", "input()"]
    with only_run(path, tmp_path) as lock:
        child = subprocess.Popen(wait, stdin=subprocess.PIPE, pass_fds=(lock,))
    with pytest.raises(UserError, match="another run is at work"), only_run(path, tmp_path):
        pass
    child.communicate(b"\n")
    with only_run(path, tmp_path):
        pass


def test_a_link_to_a_disk_that_is_not_mounted_is_one_sentence(checkout: Path) -> None:
    (checkout / "data").symlink_to(checkout / "disk" / "data")
    with pytest.raises(UserError, match=r"data is no folder \(.*/disk/data\): mount its disk"):
        repro(checkout)
    assert not (checkout / "stages" / "dvc.yaml").exists()


@pytest.mark.parametrize(
    "command", ["run", "plan", "report", "verify", "cost", "experiments", "export --out a", "ui"]
)
def test_a_command_outside_the_projects_folder_is_refused(
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    """In a folder of it, too, where some found nothing wrong because they found nothing."""
    folder = checkout / "docs"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["pipeline", *command.split()])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == (
        f"error: {folder} has no params.yaml: run from the project's folder\n"
    )
    assert not list(folder.iterdir())
