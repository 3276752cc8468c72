"""Faults of what is stored: full and read-only disks, flipped bits, a remote that breaks off."""

import shutil
import subprocess
from pathlib import Path

from tests.faults.check import CACHE, locked, ran
from tests.faults.remote import Remote
from tests.faults.trial import REPRO, Trial
from tests.faults.workspace import Done, Workspace

FOLDERS = {"cache": "p/.dvc/cache", "artifacts": "p/artifacts", "temporary folder": "tmp"}
ROOM = "400m"
REFUSED = "refuses this run"  # MLflow; SQLite may say "disk I/O error"
VERIFY = ("python", "-m", "pipeline", "verify")


def size(folder: Path) -> int:
    """Return the bytes that a disk needs for a folder, or a file."""
    paths = [folder, *folder.rglob("*")] if folder.is_dir() else [folder]
    return sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in paths if path.exists())


def full_disk(trial: Trial) -> None:
    """Give a folder a disk of its own that fills up during the run."""
    workspace, details = trial.copy(), trial.fault.details
    name = FOLDERS.get(details["disk"], "p/mlflow.db")
    place = workspace.folder / name
    need = size(trial.base.end / name) - size(trial.base.start / name)
    room = size(place) + int(details["at"] * max(need, 200_000))
    disk = trial.folder / "disk"
    shutil.move(place, disk.with_name("content"))
    _mount(trial, disk, room)
    if details["disk"] == "mlflow.db":  # SQLite follows the link, and keeps its journal there
        shutil.copy2(disk.with_name("content"), disk / "mlflow.db")
        place.symlink_to(disk / "mlflow.db")
    else:
        copied = subprocess.run(["cp", "-a", f"{disk.with_name('content')}/.", disk], check=False)
        assert copied.returncode == 0, "the disk is too small for what is there already"
        place.mkdir()
        subprocess.run(["mount", "--bind", disk, place], check=True)
        trial.cleanup.append(lambda: subprocess.run(["umount", "-l", place], check=False))
    workspace.plan()
    trial.first = workspace.run(*REPRO)
    trial.reached = trial.first.status != 0 or REFUSED in trial.first.output
    trial.kept = ran(trial.first.output)
    subprocess.run(["mount", "-o", f"remount,size={ROOM}", disk], check=True)


def _mount(trial: Trial, disk: Path, room: int) -> None:
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={max(room, 4096)}", "tmpfs", str(disk)]
    subprocess.run(command, check=True)
    trial.cleanup.append(lambda: subprocess.run(["umount", "-l", disk], check=False))


def read_only(trial: Trial) -> None:
    """Make the cache read-only for a run."""
    workspace = trial.copy()
    cache = workspace.root / ".dvc" / "cache"
    subprocess.run(["mount", "--bind", cache, cache], check=True)
    trial.cleanup.append(lambda: subprocess.run(["umount", "-l", cache], check=False))
    subprocess.run(["mount", "-o", "remount,ro,bind", cache], check=True)
    workspace.plan()
    trial.first = workspace.run(*REPRO)
    trial.reached = trial.first.status != 0
    subprocess.run(["umount", "-l", cache], check=True)
    trial.cleanup.clear()
    trial.kept = ran(trial.first.output)


def bit_flipped(trial: Trial) -> None:
    """Flip a bit after a finished run, ask `verify`, and do what it says."""
    workspace = trial.copy(end=True)
    workspace.plan()
    workspace.run(*REPRO)  # DVC knows the files of the copy
    details = trial.fault.details
    file = _victim(trial)
    flip(file, details["at"], details["bit"])
    trial.first = workspace.run(*VERIFY)
    where = file.relative_to(workspace.root).as_posix()
    if details["file"] == "mlflow.db":  # SQLite has no checksums: most flips change a value
        trial.reached = trial.first.status != 0
        trial.tracked = trial.reached
    elif details["file"] == "stages/dvc.lock":  # a wrong hash is as good as a changed input
        trial.reached = workspace.run(*REPRO).status != 0 or trial.first.status != 0
    elif where not in trial.first.output or not trial.first.status:
        trial.problems.append(f"verify does not name {where}")
    follow(workspace, trial.first)


def follow(workspace: Workspace, advice: Done) -> None:
    """Do what `verify` says."""
    for line in advice.output.splitlines():
        if line.strip().startswith(("rm ", "mv ")):
            subprocess.run(line, shell=True, cwd=workspace.root, check=True)


def _victim(trial: Trial) -> Path:
    root, details = trial.workspace.root, trial.fault.details
    if details["file"] in {"stages/dvc.lock", "mlflow.db"}:
        return root / str(details["file"])
    if details["file"] == "cached object":
        digests = set(locked(root).values())
        files = [f for f in sorted((root / CACHE).glob("??/*")) if _used(f, root, digests)]
    else:
        names = [root / "artifacts" / name for name in locked(root)]
        files = sorted(file for name in names for file in name.rglob("*") if file.is_file())
    file = files[int(details["at"] * len(files))]
    if details["file"] == "artifact":  # its own inode: otherwise it is the cached object as well
        shutil.copy2(file, file.with_name("copy"))
        file.with_name("copy").replace(file)
    return file


def _used(file: Path, root: Path, digests: set[str]) -> bool:
    """Return whether the lock file names an object, or the folder that it is in."""
    name = file.parent.name + file.name
    texts = [root / CACHE / digest[:2] / digest[2:] for digest in digests]
    return name in digests or any(name in path.read_text() for path in texts)


def flip(file: Path, at: float, bit: int) -> None:
    """Flip a bit of a file, and keep its times and mode, as failing hardware does."""
    import os

    info = file.stat()
    file.chmod(0o644)
    with file.open("r+b") as stream:
        position = int(at * info.st_size)
        stream.seek(position)
        byte = stream.read(1)[0]
        stream.seek(position)
        stream.write(bytes([byte ^ 1 << bit]))
    file.chmod(info.st_mode)
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))


def remote(trial: Trial) -> None:
    """Push to, or pull from, a server that stops in the middle; then do it again."""
    workspace = trial.copy(end=True)
    root, pulling = workspace.root, trial.fault.details["while"] == "pulling"
    cache, store = root / ".dvc" / "cache", trial.folder / "remote"
    store.mkdir()
    if pulling:
        shutil.copytree(root / ".dvc" / "cache" / "files", store / "files")
    total = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    with Remote(store, int(trial.fault.details["at"] * total)) as server:
        _configure(workspace, server.address)
        if pulling:
            forget(workspace)
        command = ("dvc", "pull" if pulling else "push")
        trial.first = workspace.run(*command)
        trial.reached = server.broken
        server.heal()
        second = workspace.run(*command)
        if not pulling and not second.status:
            forget(workspace)
            second = workspace.run("dvc", "pull")
        if second.status or second.hung:
            trial.problems.append(f"{command[1]} after the repair: status {second.status}")
    trial.collected = True  # only what the lock files name is pushed
    trial.kept = set(locked(root))


def _configure(workspace: Workspace, address: str) -> None:
    for line in (
        f"remote add --local -d r {address}",
        "remote modify --local r method PUT",
    ):
        done: Done = workspace.run("dvc", *line.split())
        assert not done.status, done.output


def forget(workspace: Workspace) -> None:
    """Remove the artifacts, the cache and what DVC knows of them, as in a new clone."""
    for folder in (
        workspace.root / "artifacts",
        workspace.root / ".dvc" / "cache",
        workspace.folder / "site-cache",
    ):
        shutil.rmtree(folder, ignore_errors=True)
