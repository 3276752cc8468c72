"""A parent of workers: it forks a process per request, with slow imports done beforehand.

``import torch`` takes seconds; a fork of a process that has done it takes milliseconds.
Python's own fork server (multiprocessing) does not fit: there every worker keeps the server alive,
so that workers outlive a driver that was killed.

Started by `pipeline.run.local` as ``python -P -m pipeline.run.fork_server FD [MODULE ...]``. Over
the socket FD come requests, one JSON object a line: name, folder, environment, log, and either argv
(to execute) or module and arguments (to run as ``python -m`` does). The replies are {name, pid} and
then {name, status}. End of file means that the driver is gone: all workers and what they started are killed.
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
import sys
import threading
from typing import Any, NoReturn

from pipeline.process import die_with_parent
from pipeline.storage import disk_space

OWN = ("pipeline", "stages")  # packages of the project: a worker must import them afresh


def serve(channel: socket.socket) -> dict[str, Any] | None:
    """Fork a worker per request; returns the request in the worker, and None at the very end."""
    ours, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    workers: dict[int, str] = {}
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
                workers[pid] = request["name"]
                with contextlib.suppress(OSError):  # the worker was faster and did it itself
                    os.setpgid(pid, pid)
                send(channel, name=request["name"], pid=pid)
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    return None


def reap(channel: socket.socket, workers: dict[int, str]) -> None:
    """Report the workers that have ended."""
    for pid in list(workers):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            send(channel, name=workers.pop(pid), status=os.waitstatus_to_exitcode(status))


def send(channel: socket.socket, **fields: str | int) -> None:
    """Send one line; a driver that is gone is noticed when reading."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        channel.sendall(json.dumps(fields).encode() + b"\n")


def run_worker(request: dict[str, Any], server: int) -> None:
    """Turn this fork of the process ``server`` into the worker that was asked for."""
    os.setpgid(0, 0)
    die_with_parent(signal.SIGKILL)
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
    for module in [name for name in sys.modules if name.partition(".")[0] in OWN]:
        del sys.modules[module]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # for the log's readers
    sys.path.insert(0, request["folder"])
    sys.argv = [request["module"], *request["arguments"]]
    exit_worker(run(request["module"]))


def run(module: str) -> int:
    """Do what ``python -m module`` does, and return its exit status."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def exit_worker(status: int) -> NoReturn:
    """End this fork as multiprocessing ends its own.

    The interpreter's own end would take apart all that was imported beforehand: 0.6 s for torch.
    """
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads, as every exit does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status & 0xFF)


def main() -> None:
    """Import what is to be imported beforehand, then serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is the driver's business
    server = os.getpid()
    for module in sys.argv[2:]:
        with contextlib.suppress(Exception):  # the stage that needs it will say what is wrong
            importlib.import_module(module)
    gc.freeze()  # the workers' garbage collectors need not look at all that, nor copy it
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        request = serve(channel)
    if request:
        run_worker(request, server)


if __name__ == "__main__":
    main()
