"""A process that forks a worker for each request, after slow imports: the server, and its client.

``import torch`` takes seconds; a fork of a process that has imported it takes milliseconds. The
fork server of multiprocessing does not fit: there every worker keeps the server alive, so that
workers outlive a driver that was killed.

`Server` starts the process ``python -P -m pipeline.run.fork_server [--apart] FD [MODULE ...]``. It
sends requests over the socket FD, one JSON object a line: name, folder, environment, log, and
either argv (to execute) or module and arguments (to run as ``python -m`` does). The replies are
{name, pid} and then {name, status}. End of file means that the driver is gone: the process then
ends all workers and their children, by SIGKILL or by the signal ``end`` of the request.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline.errors import of_memory
from pipeline.process import die_with_parent
from pipeline.storage import disk_space

MODULE = "pipeline.run.fork_server"
APART = "--apart"
MEMORY_HINT = "run fewer stages at once (SMS_JOBS or SMS_GPU_JOBS), then run again"
PROJECT = ("pipeline", "stages")  # packages that a worker must import anew: they may be edited


class Server:
    """The driver's end of the process."""

    def __init__(
        self,
        modules: Sequence[str],
        environment: Mapping[str, str],
        logs: Path,
        *,
        apart: bool = False,
    ) -> None:
        code = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")]))
        self.channel, theirs = socket.socketpair()
        self.rest = b""
        with theirs, (logs / "workers.log").open("a") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    MODULE,
                    *([APART] if apart else []),
                    str(theirs.fileno()),
                    *modules,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=os.environ | environment | {"PYTHONPATH": path},
            )

    def ask(self, **request: Any) -> None:
        """Send one request; reading, not sending, notices that the server is dead."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.channel.sendall(json.dumps(request).encode() + b"\n")

    def read(self) -> tuple[bool, list[dict[str, Any]]]:
        """Return whether the server lives, and its replies."""
        try:
            data = self.channel.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        *lines, self.rest = (self.rest + data).split(b"\n")
        return bool(data), [json.loads(line) for line in lines]

    def close(self) -> None:
        """Let the server kill its workers and end."""
        self.channel.close()
        try:
            self.process.wait(1)
        except subprocess.TimeoutExpired:  # still importing, so without workers
            self.process.kill()
            self.process.wait()


def serve(channel: socket.socket) -> dict[str, Any] | None:
    """Fork a worker per request; return the request in the worker, and None in the server."""
    ours, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    workers: dict[int, dict[str, Any]] = {}
    text = b""
    while True:
        ready = select.select([channel.fileno(), ours], [], [])[0]
        if ours in ready:
            os.read(ours, 4096)
            reap(channel, workers)
        if channel.fileno() in ready:
            data = channel.recv(1 << 16)
            if not data:
                break
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                request: dict[str, Any] = json.loads(line)
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    for end in (ours, wake):
                        os.close(end)
                    return request
                workers[pid] = request
                with contextlib.suppress(OSError):  # the worker was faster and did it itself
                    os.setpgid(pid, pid)
                send(channel, name=request["name"], pid=pid)
    for pid, request in workers.items():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, request.get("end", signal.SIGKILL))
    return None


def reap(channel: socket.socket, workers: dict[int, dict[str, Any]]) -> None:
    """Report the workers that have ended."""
    for pid in list(workers):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            name = workers.pop(pid)["name"]
            send(channel, name=name, status=os.waitstatus_to_exitcode(status))


def send(channel: socket.socket, **fields: str | int) -> None:
    """Send one line; reading, not sending, notices that the driver is gone."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        channel.sendall(json.dumps(fields).encode() + b"\n")


def run_worker(request: dict[str, Any], server: int) -> None:
    """Turn this fork of the process ``server`` into the worker of ``request``."""
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # Ray blocks SIGINT in all its processes
    die_with_parent(request.get("end", signal.SIGKILL))
    if os.getppid() != server:
        sys.exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        os._exit(disk_space.STATUS if disk_space.shortage(error) else 1)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if "argv" in request:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, commands must not
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.execvp(request["argv"][0], request["argv"])  # noqa: S606 - the shell is in argv
    for module in [name for name in sys.modules if name.partition(".")[0] in PROJECT]:
        del sys.modules[module]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # for the log's readers
    sys.path.insert(0, request["folder"])
    sys.argv = [request["module"], *request["arguments"]]
    exit_worker(run(request["module"]))


def run(module: str) -> int:
    """Run ``module`` as ``python -m`` does, and return its exit status."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted by SIGINT\n")
        return 128 + signal.SIGINT
    except BaseException as error:
        if of_memory(error):
            reason = (str(error) or type(error).__name__).splitlines()[0]
            sys.stderr.write(f"error: not enough memory for this stage ({reason}): {MEMORY_HINT}\n")
        else:
            sys.excepthook(*sys.exc_info())
        return 1
    return 0


def exit_worker(status: int) -> NoReturn:
    """End this fork as multiprocessing ends its forks.

    The interpreter's usual end would take 0.6 s to free the objects of torch.
    """
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads, as every exit does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status & 0xFF)


def stand_apart(channel: int) -> None:
    """Continue in a fork, for which this process only waits.

    Ray kills the children of its processes at their end, but not the children of these. So the
    server lives to see the end of file, and ends its workers with all their children.
    """
    child = os.fork()
    if child:
        os.close(channel)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)


def main() -> None:
    """Import the modules that the command line names, then serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles ^C
    apart = sys.argv[1] == APART
    number, *modules = sys.argv[1 + apart :]
    if apart:
        stand_apart(int(number))
    server = os.getpid()
    for module in modules:
        with contextlib.suppress(Exception):  # the stage that imports it reports the error
            importlib.import_module(module)
    gc.freeze()  # the workers' garbage collectors neither visit nor copy these objects
    with socket.socket(fileno=int(number)) as channel:
        request = serve(channel)
    if request:
        run_worker(request, server)


if __name__ == "__main__":
    main()
