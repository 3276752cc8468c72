"""Two nodes on this machine, each with a network, a mount table and a name of its own.

A node is a process that holds Linux namespaces; a third one holds the bridge between them, whose
ports are taken down and up as one pulls and plugs a cable. Nothing remains when they end. Where
namespaces are not permitted, both nodes are processes on two ports, and SIGSTOP is the lost link.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.toy import alive

ADDRESSES = {"a": "10.77.0.1", "b": "10.77.0.2"}
DISK = 64  # megabytes of the temporary folder of node b
QUICK = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 3,
}
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-gpus", "0"]
HOLDER = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--uts", "sh", "-c"]
STORE = ["--object-store-memory", "100000000", "--num-cpus", "1"]


def permitted() -> bool:
    """Say whether this process may make namespaces."""
    command = ["unshare", "--net", "--mount", "--uts", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Nodes:
    """The nodes a and b, each with a folder for temporary files in ``folder``."""

    def __init__(self, folder: Path, *, namespaces: bool) -> None:
        self.folder, self.namespaces = folder, namespaces
        self.holders: dict[str, subprocess.Popen[bytes]] = {}
        self.quick: bool | None = None  # of the running cluster
        self.hidden: Path | None = None
        for name in "ab":
            (folder / name).mkdir()
        if namespaces:
            self._connect()
            self.port = 6379
        else:
            with socket.create_server(("127.0.0.1", 0)) as server:
                self.port = server.getsockname()[1]

    def _connect(self) -> None:
        for name in ("switch", "a", "b"):
            hold = f"hostname node-{name}; echo; exec sleep 100000 > /dev/null 2>&1"
            self.holders[name] = subprocess.Popen([*HOLDER, hold], stdout=subprocess.PIPE)
        for holder in self.holders.values():
            assert holder.stdout
            holder.stdout.readline()
        self.inside("switch", "ip link add bridge type bridge; ip link set bridge up")
        for name, address in ADDRESSES.items():
            port, cable = f"to-{name}", f"peer name eth0 netns {self.holders[name].pid}"
            self.inside("switch", f"ip link add {port} type veth {cable}")
            self.inside("switch", f"ip link set {port} master bridge up")
            self.inside(name, f"ip link set lo up; ip addr add {address}/24 dev eth0")
            self.inside(name, "ip link set eth0 up")
        self.inside("b", f"mount -t tmpfs -o size={DISK}m none {self.folder}/b")

    def command(self, name: str, words: list[str]) -> list[str]:
        """Return the command that runs ``words`` on a node; on b it starts in the folder /."""
        if not self.namespaces:
            return words
        words = words if name == "a" else ["--mount", *words]  # a has this process's mounts
        return ["nsenter", "--target", str(self.holders[name].pid), "--net", "--uts", *words]

    def inside(self, name: str, script: str) -> None:
        """Run a shell script on a node."""
        words = self.command(name, ["sh", "-ec", script])
        subprocess.run(words, check=True, capture_output=True)

    def view(self, name: str, path: Path) -> Path:
        """Return the path under which this process sees ``path`` of a node."""
        if not self.namespaces or name == "a":
            return path
        return Path(f"/proc/{self.holders[name].pid}/root{path}")

    def hide(self, folder: Path | None) -> None:
        """Let node b see nothing in ``folder``, and the last one again."""
        if self.hidden:
            self.inside("b", f"umount -l {self.hidden}")
        if folder:
            self.inside("b", f"mount -t tmpfs none {folder}")
        self.hidden = folder

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a node."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SMS_", "DVC_"))}
        kept |= {"TMPDIR": f"{self.folder}/{name}", "RAY_USAGE_STATS_ENABLED": "0"}
        kept.pop("PYTHONPATH", None)
        return kept | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    @property
    def address(self) -> str:
        """The address of the cluster."""
        return f"{self._ip('a')}:{self.port}"

    def _ip(self, name: str) -> str:
        return ADDRESSES[name] if self.namespaces else "127.0.0.1"

    def ready(self, *, quick: bool) -> None:
        """Start the cluster, or what is missing of it; ``quick`` says how soon a node is lost."""
        for file in self.view("b", self.folder / "b").glob("[!r]*"):  # all but Ray's own
            shutil.rmtree(file, ignore_errors=True)
            file.unlink(missing_ok=True)
        if quick != self.quick or not self.lives("a"):
            self.stop("a", "b")
            self.start("a", quick=quick)
        if not self.lives("b"):
            self.stop("b")
            self.start("b")
        self.quick = quick

    def lives(self, name: str) -> bool:
        """Say whether Ray runs on a node."""
        return any("/raylet/raylet " in words for words in self.processes(name).values())

    def start(self, name: str, *, quick: bool = False) -> None:
        """Start Ray on a node, and wait until it runs; it gives up by itself on a busy machine."""
        words = ["--address", self.address]
        if name == "a":
            words = ["--head", "--port", str(self.port), "--include-dashboard", "false"]
            words += ["--system-config", json.dumps(QUICK)] if quick else []
        words += ["--node-ip-address", self._ip(name), "--temp-dir", f"{self.folder}/{name}/ray"]
        for _ in range(5):
            log = self.folder / f"ray-{name}.log"
            with log.open("w") as output:
                ray = subprocess.Popen(
                    self.command(name, [*RAY, *words, *STORE]),
                    cwd="/",
                    env=self.environment(name),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            while ray.poll() is None:
                if "Ray runtime started" in log.read_text():
                    return
                time.sleep(0.1)
            self.stop(name)
        raise OSError(f"Ray does not start: see {log}")

    def fill(self) -> None:
        """Fill the temporary folder of node b."""
        for size in ("1M", "1k", "1k"):
            file = f"{self.folder}/b/full-{time.monotonic_ns()}"
            with suppress(subprocess.CalledProcessError):
                self.inside("b", f"dd if=/dev/zero of={file} bs={size}")

    def cut(self, seconds: float) -> None:
        """Take the link of node b away for ``seconds``."""
        if self.namespaces:
            self.inside("switch", "ip link set to-b down")
            time.sleep(seconds)
            self.inside("switch", "ip link set to-b up")
            return
        stopped = self.processes("b")
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def processes(self, *names: str) -> dict[int, str]:
        """Return the processes of nodes by their command lines, drivers included."""
        wanted = {f"TMPDIR={self.folder}/{name}".encode() for name in names}
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if wanted.isdisjoint(place.joinpath("environ").read_bytes().split(b"\0")):
                    continue
                words = place.joinpath("cmdline").read_bytes()
                found[int(place.name)] = words.replace(b"\0", b" ").decode(errors="replace").strip()
        return {pid: words for pid, words in found.items() if words and alive(pid)}

    def stop(self, *names: str) -> None:
        """Kill all processes of nodes."""
        for _ in range(100):
            left = self.processes(*names)
            if not left:
                return
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def close(self) -> None:
        """End everything."""
        self.stop("a", "b")
        for holder in self.holders.values():
            holder.kill()
            holder.wait()
