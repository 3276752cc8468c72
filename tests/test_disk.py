"""A full disk: one sentence that names it, no further stage, and nothing lost."""

import errno
import os
import subprocess
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from dvc.exceptions import DvcException

from pipeline.errors import UserError
from pipeline.run.dvc_errors import stage_errors
from pipeline.run.interfaces import DiskFullError
from pipeline.run.local import LocalEngine
from pipeline.storage import disk_space
from tests.toy import SOURCE, Toy, alone, python

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's own

FILL = """
import argparse
from pathlib import Path
from pipeline.stagekit.cli import atomic_folder, run

parser = argparse.ArgumentParser()
parser.add_argument("--megabytes", type=int)
parser.add_argument("--out", type=Path)

def main(flags):
    with atomic_folder(flags.out) as folder:
        (folder / "value").write_bytes(bytes(flags.megabytes * 1_000_000))

run(main, parser)
"""


def mounted(folder: Path, size: str, *options: str) -> None:
    """Mount a disk of ``size`` in memory, or skip the test."""
    options = (*options, f"size={size}")
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip("a disk can be mounted by root only")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    """Give a repository on a disk of 8 MB."""
    alone(monkeypatch, tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    folder = tmp_path / "small"
    folder.mkdir()
    mounted(folder, "8m")
    try:
        yield Toy(folder / "toy")
    finally:
        subprocess.run(["umount", folder], check=False)


def fill(toy: Toy, name: str, megabytes: int) -> None:
    """Add the stage ``name``, of the project's own kind, which writes so much."""
    (toy.root / "stages" / "run").write_text((SOURCE / "stages" / "run").read_text())
    (toy.root / "stages" / "run").chmod(0o755)
    (toy.root / "stages" / "__init__.py").touch()
    (toy.root / "stages" / "fill.py").write_text(FILL)
    toy.add(name, cmd=f"stages/run fill --megabytes {megabytes} --out artifacts/{name}")


def test_a_disk_that_a_stage_fills(small: Toy, capfd: pytest.CaptureFixture[str]) -> None:
    small.add("first")
    fill(small, "big", 20)
    small.add("other")
    mount = small.root.parent
    with pytest.raises(UserError) as error:
        small.execute(engine=LocalEngine(small.root, 1, ()))
    sentence = f"no space left on the disk at {mount} ("
    assert str(error.value).startswith(sentence)
    assert "of 8.4 MB free): 1 stages are done and kept, 2 are left" in str(error.value)
    said = capfd.readouterr().err
    assert f"big failed: {sentence}" in said
    assert f"    error: {sentence}" in said
    assert "Traceback" not in said
    assert small.ran() == ["first"]
    assert yaml.safe_load(small.lock())["stages"].keys() == {"first"}
    mounted(mount, "64m", "remount")
    assert set(small.execute(engine=LocalEngine(small.root, 1, ())).ran) == {"big", "other"}


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("place", ["begin", "restore", "keep", "flush", "start"])
def test_a_disk_that_fills_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    alone(monkeypatch, tmp_path)
    toy = Toy(tmp_path / "toy")
    toy.add("first")
    toy.add("second", "first")
    toy.add("third", "second")
    where: dict[str, tuple[str, Callable[..., None]]] = {
        "begin": ("dvc.stage.Stage.save_deps", full_disk),
        "restore": ("dvc.stage.cache.StageCache.restore", full_disk),
        "keep": ("dvc.stage.Stage.save_outs", full_disk),
        "flush": ("pipeline.run.dvc_graph.durable_file", full_disk),
        "start": ("pipeline.run.local.Server", full_disk),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*where[place])
        with pytest.raises(UserError, match=r"no space left on the disk at .* free\): \d stages"):
            toy.execute(jobs=1)
    assert "third" not in toy.ran()
    assert ("first" in toy.execute().cached) == (place == "flush")  # out of the run cache


def test_errors_of_a_full_disk_and_others(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "a" / "b"))
    assert f"the disk at {disk_space.mount(tmp_path)} (" in str(disk_space.shortage(error))
    for text in ("I/O error: No space left on device (os error 28)", "database or disk is full"):
        assert disk_space.shortage(RuntimeError(text)) is not None
    assert disk_space.shortage(OSError(errno.EACCES, "Permission denied")) is None
    chained = ValueError("no cache")
    chained.__cause__ = error
    disk = str(disk_space.shortage(error)).partition(" (")[0]  # without the free space of now
    assert str(disk_space.shortage(chained)).startswith(disk)


def test_the_full_disk_is_named_where_the_error_names_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache may lie on a disk of its own, and DVC's errors have no path."""
    cache, other = tmp_path / "cache", tmp_path / "other"
    usage = namedtuple("usage", "free total")
    monkeypatch.setattr(disk_space, "mount", lambda path: path)
    for full in (cache, other):
        monkeypatch.setattr(
            disk_space.shutil, "disk_usage", lambda path, full=full: usage(9 * (path != full), 10)
        )
        cause = OSError(errno.ENOSPC, "No space left on device", str(other))
        with (
            pytest.raises(DiskFullError, match=f"the disk at {full} "),
            stage_errors(cache),
        ):
            raise DvcException("cannot be kept") from cause


def test_a_report_that_finds_no_room(tmp_path: Path) -> None:
    """Any command of the project, here on the disk that is always full."""
    code = (
        "import sys, pipeline.__main__ as m\n"
        "def report():\n"
        "    with open('/dev/full', 'w') as file:\n"
        "        file.write('results')\n"
        "m._report = report\n"
        "sys.argv[1:] = ['report']\n"
        "m.main()\n"
    )
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    done = python(code, tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no space left on the disk at ")
    assert len(done.stderr.splitlines()) == 1
