"""`python -m pipeline verify`: every broken file is named, with the command that mends it."""

import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.run.verify import verify
from tests.toy import Toy, alone

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's own


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """Give a repository with two finished stages, whose artifacts are links to the cache."""
    alone(monkeypatch, tmp_path)
    toy = Toy(tmp_path / "toy")
    toy.add("first")
    toy.add("second", "first")
    toy.execute()
    toy.ran()
    return toy


def flip(file: Path) -> None:
    """Change a byte, and keep time and mode, as failing hardware does."""
    info = file.stat()
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    with file.open("r+b") as stream:
        stream.write(content)
    file.chmod(info.st_mode)
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))


def value(toy: Toy) -> Path:
    return toy.root / "artifacts" / "first" / "value"


def cached(toy: Toy) -> Path:
    """Return the object of the cache that is the same file as the artifact."""
    objects = (toy.root / ".dvc" / "cache" / "files" / "md5").glob("??/*")
    (same,) = (file for file in objects if file.stat().st_ino == value(toy).stat().st_ino)
    return same


def follow(root: Path, advice: str) -> None:
    """Run the commands that `verify` prints."""
    for command in re.findall(r"^ +((?:rm|mv) .*)$", advice, re.MULTILINE):
        subprocess.run(command, shell=True, cwd=root, check=True)


def folder_list(toy: Toy) -> Path:
    return next((toy.root / ".dvc" / "cache" / "files" / "md5").glob("??/*.dir"))


def lock(toy: Toy) -> Path:
    return toy.root / "stages" / "dvc.lock"


def database(toy: Toy) -> Path:
    file = toy.root / "mlflow.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE runs (name TEXT)")
    return file


def test_an_intact_repository(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    database(toy)
    assert verify(toy.root) == 0
    assert "are intact" in capsys.readouterr().out


def test_what_dvc_cannot_read_is_one_sentence(toy: Toy) -> None:
    (toy.root / ".dvc" / "config").write_text("[core\n")
    with pytest.raises(UserError, match="config"):
        verify(toy.root)


def test_a_missing_lock_file_is_said(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    lock(toy).unlink()
    assert verify(toy.root) == 0
    assert "no artifact was checked, since stages/dvc.lock" in capsys.readouterr().out


@pytest.mark.parametrize("victim", [cached, folder_list, value])
def test_a_flipped_bit_is_found_and_mended(
    toy: Toy, capsys: pytest.CaptureFixture[str], victim: Callable[[Toy], Path]
) -> None:
    before, content, file = lock(toy).read_bytes(), value(toy).read_bytes(), victim(toy)
    flip(file)
    if victim is not folder_list:  # DVC sees nothing: read-only, with the size and time it knows
        assert set(toy.execute().cached) == {"first", "second"}
        capsys.readouterr()
    assert verify(toy.root) == 1
    said = capsys.readouterr().out
    assert f"{file.relative_to(toy.root)} is damaged" in said
    assert "`dvc repro`" in said
    follow(toy.root, said)
    toy.execute()
    capsys.readouterr()
    assert verify(toy.root) == 0
    assert (lock(toy).read_bytes(), value(toy).read_bytes()) == (before, content)


def test_an_object_that_is_gone(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    digest = cached(toy).parent.name + cached(toy).name
    cached(toy).unlink()
    assert verify(toy.root) == 1
    said = capsys.readouterr().out
    assert f"the cache lacks {digest}, of artifacts/first" in said
    follow(toy.root, said)
    toy.execute()
    assert toy.ran() == ["first"]
    assert verify(toy.root) == 0


@pytest.mark.parametrize(
    "content", ["", "schema: '2.0'\nstages:\n  first", "schema: '2.0'\nstages: 3\n"]
)
def test_a_damaged_lock_file(toy: Toy, capsys: pytest.CaptureFixture[str], content: str) -> None:
    before = lock(toy).read_bytes()
    lock(toy).write_text(content)
    assert verify(toy.root) == 1
    said = capsys.readouterr().out
    assert said.startswith("stages/dvc.lock is damaged\n")
    follow(toy.root, said)
    toy.execute()
    assert toy.ran() == []  # out of the run cache
    assert lock(toy).read_bytes() == before


def test_a_wrong_size_in_the_lock_file(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    text = lock(toy).read_text()
    lock(toy).write_text(re.sub(r"(artifacts/second\n.*\n.*\n +size: )\d+", r"\g<1>7", text))
    assert lock(toy).read_text() != text
    assert verify(toy.root) == 1
    assert "stages/dvc.lock has a wrong size for artifacts/second" in capsys.readouterr().out


def test_a_damaged_list_of_files_in_use(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    (toy.root / ".dvc" / "tmp" / "rwlock").write_text("")
    assert verify(toy.root) == 1
    said = capsys.readouterr().out
    assert said.startswith(".dvc/tmp/rwlock is damaged\n")
    follow(toy.root, said)
    assert set(toy.execute().cached) == {"first", "second"}
    assert verify(toy.root) == 0


def test_a_database_with_an_unfinished_transaction(toy: Toy) -> None:
    """A killed writer leaves a journal, by which SQLite takes its changes back: no damage."""
    file, whole = database(toy), toy.root.parent / "writing.db"
    file.replace(whole)
    with closing(sqlite3.connect(whole, isolation_level=None)) as writer:
        writer.execute("INSERT INTO runs VALUES ('kept')")
        writer.execute("PRAGMA cache_size = 1")  # writes to the file before the commit
        writer.execute("BEGIN")
        writer.executemany("INSERT INTO runs VALUES (?)", [("x" * 1000,)] * 200)
        for end in ("", "-journal"):
            shutil.copyfile(f"{whole}{end}", f"{file}{end}")
    assert Path(f"{file}-journal").stat().st_size > 0
    assert verify(toy.root) == 0
    with closing(sqlite3.connect(file)) as reader:
        assert reader.execute("SELECT name FROM runs").fetchall() == [("kept",)]


def test_a_damaged_database(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    file = database(toy)
    file.write_bytes(b"x" * 100)
    assert verify(toy.root) == 1
    said = capsys.readouterr().out
    assert said.startswith("mlflow.db is damaged")
    follow(toy.root, said)
    assert not file.exists()
    assert (toy.root / "mlflow.db.damaged").exists()
    assert verify(toy.root) == 0
