"""The sentence that a disturbed run must show: a law for each kind of fault."""

import re
from collections.abc import Iterator

from tests.faults.draw import Fault
from tests.faults.workspace import Done

OURS = r"^(?:error|warning|stopped): .+|^\S+ failed: .+"  # names the file, the stage or the number
DVCS = r"^ERROR: .+"
STOPPED = r"^stopped: .+"
INTERRUPTED = r"^ERROR: interrupted by the user"
NAMED = {
    "read-only cache": r"^(?:error: |\S+ failed: ).*\.dvc/cache.*",
    "out of memory": r"error: not enough memory for this stage.*",
}
FULL = {
    "cache": r"^error: no space left on the disk at \S*\.dvc/cache .*",
    "artifacts": r"^error: no space left on the disk at \S*artifacts .*",
    "temporary folder": r"^error: no space left on the disk at \S*tmp .*",
    "mlflow.db": r"^warning: MLflow at .* refuses .*",
}
KILLS = {"kill at a random time", "kill at a write"}
BY_KERNEL = {"SIGKILL", "SIGSTOP"}  # SIGKILL follows SIGSTOP: the process itself cannot speak
REPORTED = "results in reports/results.md"


def needed(fault: Fault, first: Done, *, reached: bool, driver: bool) -> str | None:
    """Return a pattern that the output of the disturbed run must have, or None.

    Nothing need be said after a loss of power; of a fault that was too late; of a signal that came
    when the work was done, or that the process ignores (the run then ends with status 0, and in
    what an undisturbed run leaves, which `check.disturbed` compares).

    Args:
        fault: the fault.
        first: the disturbed run.
        reached: whether the fault hit the run.
        driver: whether the driver had been started, so that it could speak for a killed dvc.

    """
    if not reached or fault.kind == "power loss":
        return None
    if fault.kind in KILLS:
        return _of_a_kill(fault.details["signal"], fault.details["target"], first, driver=driver)
    if fault.kind == "full disk":
        return FULL[fault.details["disk"]]
    if fault.kind in NAMED:
        return NAMED[fault.kind]
    if fault.kind == "bit flipped":  # of which `verify` speaks, if it is seen
        return rf"^\S*{re.escape(_file(fault))}.*" if first.status else None
    return f"{OURS}|{DVCS}" if first.status else None


def _file(fault: Fault) -> str:
    places = {"cached object": ".dvc/cache", "artifact": "artifacts/"}
    return places.get(fault.details["file"], fault.details["file"])


def _of_a_kill(signal: str, target: str, first: Done, *, driver: bool) -> str | None:
    if target == "writer":
        return r"^warning: MLflow's process ended early.+"
    if target == "server":
        return None if signal == "SIGINT" else r"^warning: the process that starts stages.+"
    silent = first.status == 0
    if target == "dvc" and signal != "SIGINT":  # it cannot speak, but its driver can
        silent = not driver or REPORTED in first.output
    speaks = {
        "worker": r"^\S+ failed: .+",
        "driver": DVCS if signal in BY_KERNEL else STOPPED,
        "dvc": STOPPED if signal != "SIGINT" else f"{STOPPED}|{INTERRUPTED}",
        "group": f"{STOPPED}|{INTERRUPTED}",
    }
    return None if silent else speaks[target]


def missing(fault: Fault, first: Done, *, reached: bool, driver: bool) -> Iterator[str]:
    """Yield the problem of a disturbed run that shows no sentence, or none of its fault."""
    pattern = needed(fault, first, reached=reached, driver=driver)
    if pattern and not re.search(pattern, first.output, re.MULTILINE):
        yield "no sentence says what happened"


def said(fault: Fault, first: Done, *, reached: bool, driver: bool) -> str:
    """Return the sentence of a disturbed run: that of its fault, or else the first one."""
    wanted = needed(fault, first, reached=reached, driver=driver)
    for pattern in filter(None, (wanted, OURS, DVCS)):
        if match := re.search(pattern, first.output, re.MULTILINE):
            return match.group().strip()[:200]
    return ""
