"""Faults of processes: signals, power, the clock, a second command, memory."""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from tests.faults.check import TRACEBACK, locked, ran
from tests.faults.power import Disk
from tests.faults.sentences import DVCS, OURS
from tests.faults.trial import REPRO, Trial
from tests.faults.workspace import Done, Workspace

STOPPED = 1.0  # seconds between SIGSTOP and SIGKILL
BACK = ("faketime", "-f", "-2d")


def kill_at_random_time(trial: Trial) -> None:
    """Send the signal after a part of the undisturbed run's time."""
    workspace, details = trial.copy(), trial.fault.details
    workspace.plan()
    process = workspace.start(*REPRO)
    target = details["target"]
    pid = _wait(trial, process.poll, "dvc" if target == "group" else target)
    trial.reached = pid is not None
    if pid:
        _send(workspace, pid, details["signal"], group=target == "group")
    trial.first = workspace.end(process)
    trial.kept = ran(trial.first.output)


def _wait(trial: Trial, over: Callable[[], int | None], role: str) -> int | None:
    """Wait for the fault's time, and return the process of a role, once there is one."""
    begun = time.monotonic()
    due = begun + trial.fault.details["at"] * trial.base.seconds
    while over() is None:
        pid = trial.workspace.roles().get(role)
        if time.monotonic() >= due and pid:
            return pid
        time.sleep(0.02)
    return None


def _send(workspace: Workspace, pid: int, name: str, *, group: bool = False) -> None:
    """Send a signal to a process of the trial; the kernel may have used its number again."""
    if pid not in workspace.alive():
        return
    with suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(pid, signal.Signals[name])
    if name == "SIGSTOP":
        time.sleep(STOPPED)
        _send(workspace, pid, "SIGKILL")


def kill_at_write(trial: Trial) -> None:
    """Send the signal at a write of the named role to the named place."""
    workspace, details = trial.copy(), trial.fault.details
    point = details["point"]
    workspace.plan(**{k: details[k] for k in ("point", "signal", "target")}, at=trial.count(point))
    process = workspace.start(*REPRO)
    if details["signal"] == "SIGSTOP":
        while process.poll() is None and not workspace.fired():
            time.sleep(0.02)
        for pid, _ in workspace.fired():
            time.sleep(STOPPED)
            _send(workspace, pid, "SIGKILL")
    trial.first = workspace.end(process)
    trial.reached = bool(workspace.fired())
    trial.kept = ran(trial.first.output)


def power_loss(trial: Trial) -> None:
    """Lose everything that has not reached the disk."""
    details = trial.fault.details
    disk = Disk(trial.folder / "disk", *details["disk"].split()[1:])
    trial.cleanup.append(disk.unmount)
    workspace = trial.copy(folder=disk.folder / "w")
    disk.sync()
    point = details.get("point")
    hit = {"point": point, "at": trial.count(point), "signal": "SIGSTOP"} if point else {}
    workspace.plan(**hit, **({"target": point.partition(":")[0]} if point else {}))
    process = workspace.start(*REPRO)
    if point:
        while process.poll() is None and not workspace.fired():
            time.sleep(0.02)
    else:
        _wait(trial, process.poll, "dvc")
    trial.reached = process.poll() is None
    workspace.kill_all()
    disk.lose_power()
    process.wait()
    output = (workspace.control / "output").read_text(errors="replace")
    trial.first = Done(process.returncode or -signal.SIGKILL, output)
    trial.kept = set(locked(workspace.root))


def clock(trial: Trial) -> None:
    """Set the clock back by two days for a run, or date the files of the project ahead."""
    workspace, when = trial.copy(), trial.fault.details["when"]
    workspace.plan()
    if when == "files from the future":
        ahead = time.time() + 2 * 86400
        for file in workspace.root.rglob("*"):
            os.utime(file, (ahead, ahead), follow_symlinks=False)
        trial.first = workspace.run(*REPRO)
        return
    trial.reached = shutil.which(BACK[0]) is not None
    if when == "after a kill":
        process = workspace.start(*REPRO)
        time.sleep(0.6 * trial.base.seconds)
        workspace.kill_all()
        trial.kept = ran(workspace.end(process).output)
    prefix = BACK if trial.reached else ()
    trial.first = workspace.run(*prefix, *REPRO, NO_FAKE_STAT="1")
    if again := trial.kept & ran(trial.first.output):
        trial.problems.append(f"{len(again)} finished stages ran again, such as {min(again)}")
    trial.kept |= ran(trial.first.output)


def two_runs(trial: Trial) -> None:
    """Start a second command while the first run is at work."""
    workspace, details = trial.copy(), trial.fault.details
    commands = {"repro": REPRO, "push": ("dvc", "push"), "gc": ("dvc", "gc", "-w", "-f")}
    other = Workspace(workspace.folder, trial.folder / "control2")
    remote = ("dvc", "remote", "add", "--local", "-d", "r", str(trial.folder / "remote"))
    assert not other.run(*remote).status
    workspace.plan()
    other.plan()
    process = workspace.start(*REPRO)
    time.sleep(details["at"] * trial.base.seconds)
    trial.reached = process.poll() is None
    second = other.run(*commands[details["second"]])
    trial.first = workspace.end(process)
    trial.kept = ran(trial.first.output) | ran(second.output)
    trial.collected = details["second"] == "gc"
    if trial.first.status and second.status:
        trial.problems.append("neither command ended with status 0")
    if second.status and not re.search(f"{OURS}|{DVCS}", second.output, re.MULTILINE):
        trial.problems.append("the second command ended without a sentence")
    if TRACEBACK.search(second.output) or second.hung:
        trial.problems.append("the second command hung or shows a traceback")
    if second.status:
        trial.first = Done(trial.first.status, f"{second.output}\n{trial.first.output}")


def out_of_memory(trial: Trial) -> None:
    """Limit the memory of the stages' processes."""
    workspace = trial.copy()
    workspace.plan(megabytes=trial.fault.details["megabytes"])
    trial.first = workspace.run(*REPRO)
    trial.reached = trial.first.status != 0
    trial.kept = ran(trial.first.output)
