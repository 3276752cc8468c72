"""The Ray cluster of a driver: the one that RAY_ADDRESS names, or one of this machine.

The cluster of this machine belongs to a keeper, the process ``python -m pipeline.run.ray_cluster
FOLDER CPUS GPUS``, and is shared by all drivers of a user. Each driver holds a shared lock on the
file ``drivers``; the keeper waits for the exclusive lock, which it gets when the last driver has
ended or was killed, and then stops the cluster.
"""

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from pipeline.errors import UserError
from pipeline.optional_imports import extra

ENGINE = "SMS_ENGINE"
ADDRESS = "RAY_ADDRESS"
OBJECTS = 200 * 2**20  # bytes of the object store: it holds no data sets
REACHED, STARTED = 15, 120  # seconds to reach a cluster, and to start one
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
SYSTEM = {  # stages keep their priority; the killer of large processes knows nothing of them
    "worker_niceness": 0,
    "memory_monitor_refresh_ms": 0,
    "enable_metrics_collection": False,
}


class Cluster:
    """A connection to a Ray cluster, until ``close``."""

    def __init__(self, cpus: float, gpus: int) -> None:
        """Connect; a cluster that is started here has ``cpus`` and ``gpus``.

        Raises:
            UserError: Ray is not installed, or no cluster can be reached or started.
        """
        self.environment = dict(os.environ)  # Ray adds to it
        address, self.named = os.environ.get(ADDRESS, ""), named()
        self.lock: IO[str] | None = None
        importable()
        os.environ |= QUIET
        if self.named:
            check_address(address)
        else:
            folder = private_folder()
            os.environ |= authentication(folder)
            address, self.lock = join(folder, cpus, gpus)
        self.ray = extra("ray", "ray")
        try:
            self._connect(address)
        except BaseException:
            self.close()
            raise

    def _connect(self, address: str) -> None:
        with signal_handlers():
            try:
                self.ray.init(
                    address=address,
                    log_to_driver=False,
                    logging_level="ERROR",
                    configure_logging=False,
                )
            except (RuntimeError, ValueError, OSError) as error:
                sentence = " ".join(str(error).split())
                raise UserError(
                    f"the Ray cluster {address} cannot be joined ({sentence}): the driver must run "
                    f"on a node of it, with the cluster's versions of Ray and Python; correct or "
                    f"unset {ADDRESS}"
                ) from error

    def close(self) -> None:
        """Disconnect; the cluster of this machine ends with its last driver."""
        with signal_handlers():
            self.ray.shutdown()
        if self.lock:
            self.lock.close()
            self.lock = None
        for name in os.environ.keys() - self.environment.keys():
            del os.environ[name]
        os.environ |= self.environment


def elsewhere() -> bool:
    """Say whether stages run on a cluster that RAY_ADDRESS names, whose devices may be others."""
    return os.environ.get(ENGINE) == "ray" and named()


def named() -> bool:
    """Say whether RAY_ADDRESS names a cluster."""
    return os.environ.get(ADDRESS, "") not in {"", "local"}


def importable() -> None:
    """Raise a `UserError` unless Ray is installed.

    It reads its variables when it is imported, which is after `authentication`.
    """
    if find_spec("ray") is None:
        extra("ray", "ray")


@contextmanager
def signal_handlers() -> Iterator[None]:
    """Keep the signal handlers of this process, which Ray would replace."""
    kept = {}
    if threading.current_thread() is threading.main_thread():
        kept = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def check_address(address: str) -> None:
    """Refuse an address at which no Ray cluster answers; Ray itself would wait for two minutes.

    Raises:
        UserError: no cluster answers.
    """
    host, _, port = address.rpartition(":")
    if address != "auto":
        if "://" in address or not host or not port.isdecimal():
            raise UserError(f"{ADDRESS} is {address!r}, but must be HOST:PORT, auto or local")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise UserError(
                f"{ADDRESS} is {address}, but no Ray cluster answers there ({error}): correct or "
                "unset it"
            ) from error
    words = [] if address == "auto" else ["--address", address]
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=REACHED, check=False)
        lines, status = done.stderr.strip().splitlines(), done.returncode
    except subprocess.TimeoutExpired:
        lines, status = [f"no answer for {REACHED} s"], 1
    if status:
        reason = lines[-1] if lines else f"exit status {status}"
        raise UserError(
            f"{ADDRESS} is {address}, but no Ray cluster answers there ({reason}): correct or "
            "unset it"
        )


def private_folder() -> Path:
    """Return this user's folder for the cluster of this machine, which no other user can read.

    Raises:
        UserError: somebody else made it.
    """
    folder = Path(tempfile.gettempdir()) / f"sms-ray-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    info = folder.lstat()
    if info.st_uid != os.getuid() or info.st_mode & 0o077 or folder.is_symlink():
        raise UserError(f"{folder} must belong to you alone: remove it, or set TMPDIR")
    return folder


def authentication(folder: Path) -> dict[str, str]:
    """Return the variables by which Ray's processes of this user know each other."""
    token = folder / "token"
    if not token.exists():
        partial = folder / f"token.{os.getpid()}"
        partial.touch(mode=0o600)
        partial.write_text(secrets.token_hex(32), encoding="utf-8")
        with suppress(FileExistsError):  # another driver was faster
            token.hardlink_to(partial)
        partial.unlink()
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


def join(folder: Path, cpus: float, gpus: int) -> tuple[str, IO[str]]:
    """Return the address of this machine's cluster, started if need be, and the driver's lock.

    Raises:
        UserError: it does not start.
    """
    with (folder / "start").open("a") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)  # one at a time
        drivers = (folder / "drivers").open("a")
        try:
            fcntl.flock(drivers, fcntl.LOCK_SH)  # after the end of a cluster that is stopping
            address = running(folder) or start(folder, cpus, gpus)
        except BaseException:
            drivers.close()
            raise
    return address, drivers


def running(folder: Path) -> str | None:
    """Return the address of the cluster in ``folder``, if its keeper lives.

    The keeper of a driver that was killed may still be starting: it is waited for.

    Raises:
        UserError: it does not start.
    """
    deadline = time.monotonic() + STARTED
    with (folder / "keeper").open("a+") as file:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                text = file.read()
                if text:
                    return str(json.loads(text)["address"])
                time.sleep(0.1)
            else:
                return None
    raise UserError(f"Ray does not start on this machine: see {folder}/keeper.log, or try again")


def start(folder: Path, cpus: float, gpus: int) -> str:
    """Start a keeper and return the address of its cluster.

    Raises:
        UserError: it does not start; the message has the last line of its output.
    """
    log = folder / "keeper.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder), str(cpus), str(gpus)],
            cwd=Path(__file__).parents[2],
            env=os.environ | QUIET | authentication(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,
        )
    with process.stdout as told:  # type: ignore[union-attr]
        timer = threading.Timer(STARTED, process.kill)
        timer.start()
        address = told.readline().strip()
        timer.cancel()
    if not address:
        process.kill()
        process.wait()
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise UserError(
            f"Ray does not start on this machine ({lines[-1] if lines else 'no answer'}): see "
            f"{log}, or unset SMS_ENGINE"
        )
    threading.Thread(target=process.wait, daemon=True).start()  # leaves no zombie
    return address


def keep(folder: Path, cpus: float, gpus: int) -> None:
    """Start a cluster, print its address, and stop it when no driver is left."""
    for number in (signal.SIGINT, signal.SIGHUP):  # a handler; to ignore them is inherited
        signal.signal(number, lambda *_: None)
    ray = extra("ray", "ray")
    with (folder / "keeper").open("a+") as keeper, (folder / "drivers").open("a") as drivers:
        fcntl.flock(keeper, fcntl.LOCK_EX)
        sessions = folder / "ray"
        shutil.rmtree(sessions, ignore_errors=True)
        context: Any = ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            include_dashboard=False,
            object_store_memory=OBJECTS,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=str(sessions),
            _system_config=SYSTEM,
        )
        keeper.truncate(0)
        json.dump({"address": context.address_info["gcs_address"]}, keeper)
        keeper.flush()
        sys.stdout.write(context.address_info["gcs_address"] + "\n")
        sys.stdout.close()
        fcntl.flock(drivers, fcntl.LOCK_EX)
        ray.shutdown()
        keeper.truncate(0)
        shutil.rmtree(sessions, ignore_errors=True)
        os._exit(0)  # the locks go with the process


if __name__ == "__main__":
    keep(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
