"""Laws that hold after a disturbed run, and after the run that follows it."""

import hashlib
import json
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import yaml

from tests.faults.workspace import Base, Done, Workspace

TRACEBACK = re.compile(
    r'Traceback \(most recent call last\)|^ *File "[^"]+", line \d+, in ', re.MULTILINE
)
CACHE = ".dvc/cache/files/md5"
RAN = re.compile(r"^\[ *\d+/\d+\] +ran +(\S+)", re.MULTILINE)
KNOWN = re.compile(r"error|warning|failed|stopped|refus|no space|another run", re.IGNORECASE)
LEFTOVER = re.compile(r"\.tmp$|\.partial$")


def ran(output: str) -> set[str]:
    """Return the stages that ``output`` says were run to their end."""
    return set(RAN.findall(output))


def locked(root: Path) -> dict[str, str]:
    """Return the hash of each stage's output in the lock file."""
    file = root / "stages" / "dvc.lock"
    stages = (yaml.safe_load(file.read_text()) or {}).get("stages", {}) if file.exists() else {}
    return {name: entry["outs"][0]["md5"] for name, entry in stages.items() if "outs" in entry}


def damaged(root: Path) -> list[str]:
    """Return the objects of the cache whose content is not that of their name."""
    return [
        file.relative_to(root / CACHE).as_posix()
        for file in sorted((root / CACHE).glob("??/*"))
        if not file.name.startswith(".")
        and hashlib.md5(file.read_bytes()).hexdigest()
        != file.parent.name + file.name.removesuffix(".dir")
    ]


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files under a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def said(done: Done) -> str:
    """Return the sentence about a fault in the output of a run, if there is one."""
    lines = [line.strip() for line in done.output.splitlines() if KNOWN.search(line)]
    return lines[0][:200] if lines else ""


def disturbed(workspace: Workspace, base: Base, done: Done) -> Iterator[str]:
    """Yield what a disturbed run did wrong."""
    if done.hung:
        yield "it, or a process that it left, had to be killed"
    if TRACEBACK.search(done.output):
        yield "it shows a traceback"
    if done.status == 0 and not _equal(workspace.root, base.end / "p"):
        yield "it ended with status 0, but not in the lock file and report of an undisturbed run"


def settled(
    workspace: Workspace, base: Base, done: Done, *, collected: bool = False
) -> Iterator[str]:
    """Yield what is wrong after the undisturbed run that follows.

    After a collection of garbage the cache may lack what the lock file does not name.
    """
    root, end = workspace.root, base.end / "p"
    if done.hung:
        yield "the next run had to be killed"
    if done.status:
        yield f"the next run ended with status {done.status}: {said(done)}"
    if TRACEBACK.search(done.output):
        yield "the next run shows a traceback"
    for name in ("stages/dvc.lock", "stages/dvc.yaml", "dvc.lock"):
        if not (root / name).exists() or (root / name).read_bytes() != (end / name).read_bytes():
            yield f"{name} is not that of an undisturbed run"
    reports = files(root / "reports")
    for name, content in files(end / "reports").items():
        if reports.get(name) != content:
            yield f"reports/{name} is not that of an undisturbed run"
    yield from _artifacts(root, end)
    yield from _cache(root, base, collected=collected)
    yield from _leftovers(root)


def _artifacts(root: Path, end: Path) -> Iterator[str]:
    artifacts, expected = files(root / "artifacts"), files(end / "artifacts")
    named = tuple(f"{name}/" for name in locked(end))
    for name in (name for name in expected if name.startswith(named)):
        if artifacts.get(name) != expected[name]:
            yield f"artifacts/{name} is not that of an undisturbed run"


def _cache(root: Path, base: Base, *, collected: bool) -> Iterator[str]:
    if bad := damaged(root):
        yield f"the cache has {len(bad)} damaged objects, such as {bad[0]}"
    have = {file.name for file in (root / CACHE).glob("??/*")}
    earlier = {file.name for file in (base.start / "p" / CACHE).glob("??/*")}
    if earlier - have and not collected:
        yield f"the cache has lost {len(earlier - have)} objects of the earlier experiment"
    if lost := {digest[2:] for digest in named_objects(base.end / "p")} - have:
        yield f"the cache lacks {len(lost)} objects that the lock file names"


def named_objects(root: Path) -> set[str]:
    """Return the hashes that the lock file names, and those of the files in its folders."""
    folders = set(locked(root).values())
    parts = [json.loads((root / CACHE / name[:2] / name[2:]).read_text()) for name in folders]
    return folders | {entry["md5"] for part in parts for entry in part}


def _leftovers(root: Path) -> Iterator[str]:
    status = subprocess.run(
        ["git", "--no-optional-locks", "status", "--porcelain", "--untracked-files=all"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    changed = [line[3:] for line in status.splitlines()]
    known = ("dvc.lock", "stages/", "reports/")
    for name in changed:
        if not name.startswith(known) or LEFTOVER.search(name):
            yield f"git sees {name}"


def mlflow(workspace: Workspace, base: Base) -> Iterator[str]:
    """Yield what is wrong with MLflow's database after the undisturbed run."""
    try:
        earlier, now = _runs(base.start / "p"), _runs(workspace.root)
    except sqlite3.DatabaseError as error:
        yield f"mlflow.db cannot be read: {error}"
        return
    if any(now.get(run) != status for run, status in earlier.items()):
        yield "MLflow has lost runs of the earlier experiment"
    new = [status for run, status in now.items() if run not in earlier]
    if "FINISHED" not in new:
        yield "MLflow has no finished run"
    if stale := new.count("RUNNING"):
        yield f"{stale} runs in MLflow look as if they went on"


def _runs(root: Path) -> dict[str, str]:
    with closing(sqlite3.connect(f"file:{root / 'mlflow.db'}?mode=ro", uri=True)) as database:
        state = database.execute("PRAGMA integrity_check").fetchone()[0]
        if state != "ok":
            raise sqlite3.DatabaseError(state)
        return dict(database.execute("SELECT run_uuid, status FROM runs"))


def _equal(root: Path, end: Path) -> bool:
    lock = "stages/dvc.lock"
    return (root / lock).read_bytes() == (end / lock).read_bytes() and files(
        root / "reports"
    ) == files(end / "reports")
