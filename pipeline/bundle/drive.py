"""Runs `dvc repro` in a bundle: sets params.yaml, limits the time, packs the results.

``run`` (pipeline/bundle/run.py) starts it; ``SMS_BUNDLE`` names the bundle's folder.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from pipeline.bundle.pack import RUN
from pipeline.errors import UserError
from pipeline.run.interrupts import INTERRUPTED
from pipeline.run.run_lock import only_run
from pipeline.storage.atomic_files import read_json, write_json

GRACE = 40.0  # seconds from ^C to stronger signals; the driver gives its stages 5
POLL = 0.2


def main() -> int:
    """Run with the settings of the command line; return the exit status.

    It is that of `dvc repro`, 0 where the time was over, and 130 after a signal.

    Raises:
        UserError: a setting is wrong, or another run is at work in the bundle.
    """
    bundle = Path(os.environ["SMS_BUNDLE"])
    options = _options(bundle)
    with only_run(bundle / ".run.lock", bundle) as lock:
        return _run(bundle, options, lock)


def _run(bundle: Path, options: argparse.Namespace, lock: int) -> int:
    project = bundle / "project"
    os.chdir(project)
    _environment(bundle)
    _set(project, bundle / "params.yaml", options.set)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("artifacts", "reports"):  # of other settings; the cache has them too
        shutil.rmtree(project / name, ignore_errors=True)
    facts = read_json(bundle / "bundle.json")
    facts |= {"name": options.name, "settings": options.set, "minutes": options.minutes}
    facts["date"] = time.strftime("%Y-%m-%d", time.gmtime())
    write_json(project / RUN, facts)
    pack = [sys.executable, "-m", "pipeline.bundle.pack", *_packing(options)]
    status, cut = _repro(options, pack, lock)
    if cut:
        sys.stdout.write(f"stopped {cut}; finished stages are kept\n")
        return INTERRUPTED if cut.startswith("by SIG") else 0
    return status


def _options(bundle: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run", description="Run the graph without a network.")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE",
                        help="a setting, as for `dvc exp run -S`")  # fmt: skip
    parser.add_argument("--minutes", type=float, help="stop after this time; default: no limit")
    parser.add_argument("--name", default="run", help="prefix of the files in --out")
    parser.add_argument(
        "--out", type=Path, default=bundle / "back", help="the folder for the results"
    )
    parser.add_argument("--megabytes", type=float, default=60, help="limit for all files in --out")
    parser.add_argument("--every", type=float, default=60, help="seconds between packings")
    options = parser.parse_args()
    if not options.name.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"--name {options.name}: must consist of letters, digits, - and _")
    options.out = options.out.resolve()
    return options


def _environment(bundle: Path) -> None:
    """Set the environment: all files stay in the bundle, and nothing uses the network."""
    cache = bundle / "cache"
    cache.mkdir(exist_ok=True)
    os.environ |= {
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(cache / "dvc"),
        "DVC_GLOBAL_CONFIG_DIR": str(cache / "dvc-config"),
        "DVC_SYSTEM_CONFIG_DIR": str(cache / "dvc-config"),
        "MPLCONFIGDIR": str(cache / "matplotlib"),
        "SMS_MLFLOW": "0",
        "SMS_PYTHON": sys.executable,
    }


def _set(project: Path, original: Path, settings: list[str]) -> None:
    """Write params.yaml: the bundle's file ``original`` with ``settings`` over it, checked.

    Raises:
        UserError: a setting is malformed, unknown or impossible.
    """
    # DVC's function for -S needs neither git nor a cache, and takes seconds to import.
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]  # noqa: PLC0415
    from dvc.utils.hydra import apply_overrides  # type: ignore[import-untyped]  # noqa: PLC0415

    from pipeline.config import experiment, validation  # noqa: PLC0415

    keys = [setting.partition("=")[0].lstrip("+~") for setting in settings]
    validation.refuse_renamed(keys, "-S")
    path = project / "params.yaml"
    shutil.copyfile(original, path)
    try:
        apply_overrides(path, settings)
    except (DvcException, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"-S {' '.join(settings)}: {reason}") from error
    experiment.load(path)


def _packing(options: argparse.Namespace) -> list[str]:
    return [str(options.out), options.name, str(options.megabytes)]


def _repro(options: argparse.Namespace, pack: list[str], lock: int) -> tuple[int, str]:
    """Run `dvc repro`, packing meanwhile; return its status, and the reason if it was stopped.

    It holds the bundle's ``lock`` too, as it goes on if this process is killed.
    """
    caught: list[str] = []

    def note(number: int, _: FrameType | None) -> None:
        caught.append(f"by {signal.Signals(number).name}")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, note)
    begun = packed = time.monotonic()
    limit = float("inf") if options.minutes is None else 60 * options.minutes
    packing: subprocess.Popen[bytes] | None = None
    dvc = [sys.executable, "-m", "dvc", "repro"]
    run = subprocess.Popen(dvc, start_new_session=True, pass_fds=(lock,))
    while run.poll() is None and not caught:
        if time.monotonic() - begun > limit:
            caught.append(f"after {options.minutes:g} minutes")
        elif time.monotonic() - packed > options.every and (
            not packing or packing.poll() is not None
        ):
            packed, packing = time.monotonic(), _start_packing(pack)
        time.sleep(POLL)
    if caught:
        _stop(run)
    if packing:
        packing.wait()
    subprocess.run(pack, check=True)
    return run.returncode, caught[0] if caught else ""


def _start_packing(pack: list[str]) -> subprocess.Popen[bytes]:
    """Start packing with the lowest priority, in a session that ^C does not reach."""
    return subprocess.Popen(["nice", "-n", "19", *pack], start_new_session=True)


def _stop(run: subprocess.Popen[bytes]) -> None:
    """Send `dvc repro` and its driver SIGINT, as ^C does, then stronger signals."""
    for number, seconds in ((signal.SIGINT, GRACE), (signal.SIGTERM, 10.0), (signal.SIGKILL, None)):
        try:
            os.killpg(run.pid, number)
            run.wait(seconds)
            return
        except (subprocess.TimeoutExpired, ProcessLookupError):
            continue


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
