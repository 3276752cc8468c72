"""A SLURM cluster of two nodes on this machine, in a folder of its own."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from getpass import getuser
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "squeue")
NODES = ("n1", "n2")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
KillWait=5
GresTypes=gpu
FirstJobId={first}
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 Gres=gpu:2
PartitionName=all Nodes=ALL Default=YES
"""
GRES = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"  # two files that look like GPUs


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses now."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [server.getsockname()[1] for server in servers]


def write(folder: Path) -> None:
    """Write configuration and key to ``folder``, for this user and free ports."""
    folder.chmod(0o755)  # munged asks for it
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_bytes(secrets.token_bytes(64))
    for name in ("state", *NODES):
        (folder / name).mkdir()
    conf = CONF.format(
        folder=folder,
        host=socket.gethostname(),
        user=getuser(),
        ports=free_ports(3),
        first=1 + secrets.randbelow(10_000),  # other tests on this machine have other ports
    )
    (folder / "slurm.conf").write_text(conf)
    (folder / "gres.conf").write_text(GRES)
    (folder / "cgroup.conf").touch()


@contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Run a cluster, and give the environment in which SLURM's commands use it.

    Skips the test where SLURM is not installed or does not start.
    """
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        pytest.skip(f"SLURM is not installed here: no {missing[0]}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm", dir="/tmp")))
        write(folder)
        environment = {"SLURM_CONF": str(folder / "slurm.conf")}

        def start(*command: str) -> None:
            output = stack.enter_context((folder / "output").open("a"))
            process = subprocess.Popen(
                command, env=os.environ | environment, stdout=output, stderr=output
            )
            stack.callback(end, process)

        munged = f"--key-file={folder}/key --socket={folder}/munge.sock --seed-file={folder}/seed"
        start("munged", "--foreground", "--force", *munged.split(), f"--pid-file={folder}/munged")
        start("slurmctld", "-D", "-L", str(folder / "slurmctld.log"))
        for node in NODES:
            start("slurmd", "-D", "-N", node, "-L", str(folder / f"{node}.log"))
        wait(environment, folder)
        yield environment
        subprocess.run(["scancel", f"--user={getuser()}"], env=os.environ | environment, check=True)
        idle(environment)


def wait(environment: dict[str, str], folder: Path) -> None:
    """Wait until a command runs on both nodes."""
    deadline = time.monotonic() + 30
    command = ["srun", "--immediate=2", "--nodes=2", "true"]
    while subprocess.run(
        command, env=os.environ | environment, capture_output=True, check=False
    ).returncode:
        if time.monotonic() > deadline:
            lines = [line for log in folder.glob("*.log") for line in log.read_text().splitlines()]
            errors = [line for line in lines if "error" in line or "fatal" in line]
            pytest.skip(f"SLURM does not start here: {(errors or lines or ['no log'])[-1]}")
        time.sleep(0.3)


def jobs(environment: dict[str, str]) -> list[str]:
    """Return the names of all jobs that have not ended."""
    done = subprocess.run(
        ["squeue", "--noheader", "--format=%j"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def idle(environment: dict[str, str], seconds: float = 20) -> None:
    """Wait until no job is left."""
    deadline = time.monotonic() + seconds
    while left := jobs(environment):
        assert time.monotonic() < deadline, f"jobs are left: {left}"
        time.sleep(0.1)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a daemon."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
