"""Loss of power: objects are on the disk before the run cache and the lock file name them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.run import dvc_graph
from pipeline.run.verify import verify
from pipeline.storage.durable_files import durable_file, remove_leftovers
from pipeline.track.log import _git
from tests.faults.power import Disk, available
from tests.toy import SOURCE, Toy, alone

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's own


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    alone(monkeypatch, tmp_path)
    return Toy(tmp_path / "toy")


@pytest.mark.parametrize("links", ["hardlink,copy", "reflink,hardlink,copy", "copy"])
def test_objects_are_synced_before_something_names_them(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, links: str
) -> None:
    """When the run cache or the lock file names outputs, their objects have been synced."""
    config = toy.root / ".dvc" / "config"
    config.write_text(config.read_text().replace("hardlink,copy", links))
    synced: set[int] = set()
    missing: dict[str, set[Path]] = {}
    fsync, replace, save = os.fsync, os.replace, dvc_graph.save_run

    def unsynced() -> set[Path]:
        objects = list((toy.root / ".dvc" / "cache" / "files" / "md5").glob("??/*"))
        assert objects
        files = {path for file in objects for path in (file, file.parent)}
        return {path for path in files if path.stat().st_ino not in synced}

    def note(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def before_lock(source: Any, target: Any, **options: Any) -> None:
        if str(target).endswith("dvc.lock"):
            runs = {*(toy.root / ".dvc" / "cache" / "runs").glob("??/*/*")}
            files = {file for file in (*runs, Path(source)) if _inode(file) not in synced}
            missing[f"lock file of {len(runs)}"] = unsynced() | files
        replace(source, target, **options)

    def before_run_cache(stage_cache: Any, stage: Any) -> None:
        missing[stage.name] = unsynced()
        save(stage_cache, stage)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", before_lock)
    monkeypatch.setattr(dvc_graph, "save_run", before_run_cache)
    toy.add("first")
    toy.add("second", "first")
    toy.execute()
    names = ("first", "lock file of 1", "second", "lock file of 2")
    assert missing == {name: set() for name in names}
    assert (toy.root / "stages").stat().st_ino in synced


def _inode(path: Any) -> int:
    return Path(path).stat().st_ino


@pytest.mark.parametrize("content", [b"", b"zero\n\0first\0"])
def test_an_object_that_lost_its_content_is_not_taken_for_the_output(
    toy: Toy, content: bytes
) -> None:
    """After a loss of power an object may have its name, its mode and no content."""
    toy.add("first")
    toy.execute()
    value, lock = toy.value("first"), toy.lock()
    for file in (toy.root / ".dvc" / "cache" / "files" / "md5").glob("??/*"):
        file.unlink()
        file.write_bytes(content)
        file.chmod(0o444)
    shutil.rmtree(toy.root / ".dvc" / "cache" / "runs")
    shutil.rmtree(toy.root / "artifacts")
    (toy.root / "stages" / "dvc.lock").unlink()
    toy.execute()
    assert (toy.value("first"), toy.lock()) == (value, lock)
    assert verify(toy.root) == 0


def test_a_file_survives_a_loss_of_power(tmp_path: Path) -> None:
    """On a real disk, of which everything that was not synced is lost."""
    if not available():
        pytest.skip("a disk can be mounted by root only")
    disk = Disk(tmp_path / "disk", "noauto_da_alloc")
    try:
        for name in ("lost", "kept"):
            (disk.folder / name).write_text("old")
        disk.sync()
        with durable_file(disk.folder / "kept") as file:
            file.write_text("new")
        (disk.folder / "next").write_text("new")
        (disk.folder / "next").replace(disk.folder / "lost")
        disk.lose_power()
        assert (disk.folder / "kept").read_text() == "new"
        assert (disk.folder / "lost").read_text() != "new"
    finally:
        disk.unmount()


def test_files_that_a_killed_process_was_writing_are_removed(tmp_path: Path) -> None:
    """Git would show them for ever, and DVC would take one in reports/ for a part of the report."""
    writing = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from pipeline.storage.atomic_files import atomic_file\n"
        "with atomic_file(Path('dvc.yaml')) as file:\n"
        "    file.touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    subprocess.run([sys.executable, "-c", writing], cwd=tmp_path, env=environment, check=False)
    (left,) = tmp_path.iterdir()
    for name in ("dvc.yaml", f".dvc.yaml.{os.getpid()}.tmp", ".mine.tmp", ".a.b.tmp"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert not left.exists()
    assert len(list(tmp_path.iterdir())) == 4


def test_git_is_asked_without_writing_its_index(tmp_path: Path) -> None:
    """Git does not sync its index: a loss of power after a run would leave an empty one."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    file = tmp_path / "file"
    file.write_text("text")
    subprocess.run(["git", "add", "file"], cwd=tmp_path, check=True)
    os.utime(file, (1, 1))  # git would note the new time
    before = (tmp_path / ".git" / "index").read_bytes()
    assert _git(tmp_path, "status", "--porcelain") == "A  file"
    assert (tmp_path / ".git" / "index").read_bytes() == before


def test_a_stage_without_inputs_has_no_entry_to_sync(toy: Toy) -> None:
    toy.stages.clear()
    toy.stages["alone"] = {
        "cmd": "mkdir -p artifacts/alone",
        "wdir": "..",
        "outs": ["artifacts/alone"],
    }
    toy.write()
    assert toy.execute().ran == ("alone",)
