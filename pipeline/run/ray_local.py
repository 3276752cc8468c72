"""The processes of one node of a Ray cluster: those of the local engine, without its slots."""

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.run.fork_server import Server
from pipeline.run.interfaces import Task
from pipeline.run.local import LocalEngine
from pipeline.storage import disk_space


class NodeEngine(LocalEngine):
    """The fork servers of a node; Ray says how many stages run, and on which GPUs."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, sys.maxsize)

    def task(self, fields: Mapping[str, Any], folder: Path) -> Task:
        """Return the task that ``fields`` describe, in ``folder``."""
        return Task(
            commands=tuple(fields["commands"]),
            folder=folder,
            address=fields["address"],
            gpu=fields["gpu"],
        )

    def refusal(self, error: OSError) -> tuple[int, str]:
        """Return exit status and log of a stage that cannot start for ``error``."""
        sentence = disk_space.shortage(error)
        return disk_space.STATUS if sentence else 1, f"{sentence or error}\n"

    def shortage(self, status: int) -> str:
        """Return the sentence about this node's disk if a stage ended for want of space."""
        return f"{disk_space.full(self.root)}\n" if status == disk_space.STATUS else ""

    def kill(self, name: str) -> None:
        """Kill the processes of stage ``name``."""
        worker = self.tasks.get(name)
        if worker and worker.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)

    def _server(self, modules: Sequence[str]) -> Server:
        return Server(modules, self.shared, self.folder / "logs", apart=True)
