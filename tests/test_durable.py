"""Loss of power: outputs are on the disk before the cache names them, and these before the lock."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.storage.durable_files import durable_file
from pipeline.track.log import _git
from tests.faults.power import Disk, available
from tests.toy import Toy, alone

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's own


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    alone(monkeypatch, tmp_path)
    return Toy(tmp_path / "toy")


def test_order_of_syncs_and_names(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's content is synced before its name appears, and a folder before the lock file."""
    synced: list[int] = []
    named: dict[str, bool] = {}
    cache: list[int] = []
    real: dict[str, Any] = {name: getattr(os, name) for name in ("fsync", "link", "replace")}

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real["fsync"](descriptor)

    def link(source: Any, target: Any, **options: Any) -> None:
        if "cache/files" in str(target):
            named[Path(target).name] = Path(source).stat().st_ino in synced
        real["link"](source, target, **options)

    def replace(source: Any, target: Any, **options: Any) -> None:
        if str(target).endswith("dvc.lock"):
            objects = (toy.root / ".dvc" / "cache" / "files" / "md5").glob("??/*")
            cache.extend(inode for file in objects for inode in _inodes(file))
            named["lock"] = Path(source).stat().st_ino in synced and set(cache) <= set(synced)
        real["replace"](source, target, **options)

    for name, function in (("fsync", fsync), ("link", link), ("replace", replace)):
        monkeypatch.setattr(os, name, function)
    toy.add("first")
    toy.add("second", "first")
    toy.execute()
    assert len(cache) >= 8  # two files, two lists of files, and their folders
    assert len(named) >= 3
    assert all(named.values()), named
    assert toy.lock()
    assert (toy.root / "stages").stat().st_ino in synced


def _inodes(file: Path) -> tuple[int, int]:
    return file.stat().st_ino, file.parent.stat().st_ino


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
