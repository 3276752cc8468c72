"""The driver's end of a server of workers."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SERVER = "pipeline.run.fork_server"


class Server:
    """The driver's end of a `pipeline.run.fork_server` process."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str], logs: Path) -> None:
        code = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")]))
        self.channel, theirs = socket.socketpair()
        self.rest = b""
        with theirs, (logs / "workers.log").open("a") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", SERVER, str(theirs.fileno()), *modules],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=os.environ | environment | {"PYTHONPATH": path},
            )

    def ask(self, **request: Any) -> None:
        """Send one request; a server that is dead is noticed when reading."""
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
        """Have the server kill its workers and end."""
        self.channel.close()
        try:
            self.process.wait(1)
        except subprocess.TimeoutExpired:  # still importing, so without workers
            self.process.kill()
            self.process.wait()
