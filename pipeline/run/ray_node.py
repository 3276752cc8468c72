"""One node's end of the Ray engine: an actor that runs commands, and the lease of a stage.

Ray sends this module's code to the nodes; it imports the project there only after `Host.open`, in
the version that the driver runs. A lease is a task that holds the CPUs and GPUs of one stage while
the node's actor runs it, in a fork of a fork server as on the driver's own machine.
"""

import asyncio
import errno
import os
import platform
import runpy
import select
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.run.ray_files import NodeFolder, pack, unpack

TICK = 0.1  # seconds between looks at the events of running stages
HOLD = 2.0  # seconds for which `Host.reports` waits for a report
# Variables of a node; all others are the driver's, as are those of a command on one machine.
LOCAL = ("HOME", "HOSTNAME", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "SHELL", "TMPDIR", "USER")


class Host:
    """The actor of a node."""

    def __init__(self) -> None:
        self.engine: Any = None
        self.folder: NodeFolder | None = None  # where it does not see the driver's
        self.arrived: dict[str, asyncio.Task[None]] = {}  # objects by key
        self.runs: dict[str, Run] = {}
        self.news: list[tuple[str, int, int, dict[str, Any]]] = []
        self.changed = asyncio.Event()
        self.pump: asyncio.Task[None] | None = None

    async def facts(self, probe: str) -> dict[str, Any]:
        """Return versions, and whether this node sees the driver's file ``probe``."""
        return versions() | {"sees": Path(probe).exists()}

    async def sees(self, root: str, paths: Sequence[str]) -> bool:
        """Say whether all ``paths`` exist on this node, relative ones in the folder ``root``."""
        places = [Path(path) if self.folder else Path(root, path) for path in paths]
        return all(place.is_absolute() and place.exists() for place in places)

    async def open(
        self, root: str, code: str, environment: Mapping[str, str], archive: bytes | None
    ) -> None:
        """Prepare to run commands of the repository ``root`` in the driver's environment.

        The driver's code is the package `pipeline` in the folder ``code``, or in ``archive`` if
        this node does not see the folders.
        """
        kept = {name: os.environ[name] for name in LOCAL if name in os.environ}
        theirs = {name: value for name, value in environment.items() if name not in LOCAL}
        os.environ.clear()  # also of Ray's variables, which commands must not inherit
        os.environ.update(theirs | kept | {"CUDA_VISIBLE_DEVICES": ""})
        if archive is not None:
            self.folder = NodeFolder()
            root, code = str(self.folder.path), str(self.folder.stored("code"))
            unpack(archive, Path(code))
            os.environ.pop("DVC_ROOT", None)
            os.environ["PYTHONPATH"] = code
        sys.path.insert(0, code)
        from pipeline.run.ray_local import NodeEngine  # noqa: PLC0415 - the driver's version

        self.engine = NodeEngine(Path(root))

    async def run(self, name: str, attempt: int, gpus: str, task: Mapping[str, Any]) -> "End":
        """Run ``task`` and return its exit status with all events of stage ``name``.

        Where this node does not see the driver's folder, ``task`` has the objects of its inputs,
        and the end an archive of the outputs.
        """
        run = Run(attempt, asyncio.get_running_loop().create_future())
        self.runs[name] = run
        self._tell(name, run, {})  # number 0
        folder = Path(task["folder"])
        try:
            if self.folder:
                folder = await self._arrive(name, attempt, task["objects"])
            self.engine.start_on(gpus, name, self.engine.task(task, folder))
        except OSError as error:
            return self._refuse(name, run, error)
        except BaseException:
            self._over(name, run)
            raise
        if self.pump is None or self.pump.done():
            self.pump = asyncio.create_task(self._pump())
        status = await run.status
        self._over(name, run)
        if not self.folder:
            return status, run.events, None, None
        log, outputs = self.engine.log(name), None
        text = log.read_bytes() if log.exists() else b""
        if status == 0:
            outputs = await asyncio.to_thread(pack, folder, task["outputs"])
        text += self.engine.shortage(status).encode()
        await asyncio.to_thread(shutil.rmtree, self.folder.place(name, attempt), True)
        return status, run.events, text, outputs

    def _over(self, name: str, run: "Run") -> None:
        run.status.cancel()
        if self.runs.get(name) is run:
            del self.runs[name]

    def _refuse(self, name: str, run: "Run", error: OSError) -> "End":
        """Return the end of a stage that cannot start; the driver names its own full disk."""
        self._over(name, run)
        status, sentence = self.engine.refusal(error)
        driver = status == errno.ENOSPC and not self.folder
        return status, run.events, None if driver else sentence.encode(), None

    async def _arrive(self, name: str, attempt: int, objects: Mapping[str, Any]) -> Path:
        """Return a folder with the inputs of a stage; each object comes once to a node."""
        assert self.folder
        for key, reference in objects.items():
            if key not in self.arrived:
                self.arrived[key] = asyncio.create_task(self._fetch(key, reference))
            try:
                await self.arrived[key]
            except BaseException:
                self.arrived.pop(key, None)
                raise
        return await asyncio.to_thread(self.folder.run, name, attempt, list(objects))

    async def _fetch(self, key: str, reference: Any) -> None:
        assert self.folder
        await asyncio.to_thread(unpack, await reference, self.folder.stored(key))

    async def reports(self) -> list[tuple[str, int, int, dict[str, Any]]]:
        """Return stage, attempt, number and fields of new events, waiting shortly for one.

        Number 0, without fields, tells that the stage has begun on this node.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self.changed.wait(), HOLD)
        self.changed.clear()
        news, self.news = self.news, []
        return news

    async def cancel(self, name: str) -> None:
        """Kill the stage ``name``, if it runs here, and wait until it has ended."""
        run = self.runs.get(name)
        while run and not run.status.done():
            self.engine.kill(name)
            await asyncio.sleep(TICK / 2)

    async def stop(self, seconds: float) -> None:
        """End all stages, by SIGKILL those that are not done ``seconds`` after SIGTERM."""
        if self.pump:
            self.pump.cancel()
            with suppress(asyncio.CancelledError):
                await self.pump
        if self.engine:
            self.engine.stop(seconds)
        if self.folder:
            self.folder.close()
        for run in self.runs.values():
            if not run.status.done():
                run.status.set_result(-signal.SIGTERM)

    async def _pump(self) -> None:
        """Receive events and exits while stages run."""
        try:
            await self._receive()
        except Exception as error:
            for run in self.runs.values():
                if not run.status.done():
                    run.status.set_exception(error)
            raise

    async def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        while self.engine.tasks:
            channels = [server.channel for server in self.engine.servers()]
            with suppress(OSError, ValueError):  # a channel was closed meanwhile
                await loop.run_in_executor(None, select.select, channels, [], [], TICK)
            for report in self.engine.wait(0):
                run = self.runs[report.name]
                if hasattr(report, "fields"):
                    run.events.append(report.fields)
                    self._tell(report.name, run, report.fields)
                elif not run.status.done():
                    run.status.set_result(report.status)

    def _tell(self, name: str, run: "Run", fields: dict[str, Any]) -> None:
        self.news.append((name, run.attempt, len(run.events), fields))
        self.changed.set()


# Exit status and all events; log and outputs, unless the driver sees them.
End = tuple[int, list[dict[str, Any]], bytes | None, bytes | None]


class Run:
    """One running stage of a `Host`."""

    def __init__(self, attempt: int, status: "asyncio.Future[int]") -> None:
        self.attempt, self.status = attempt, status
        self.events: list[dict[str, Any]] = []


def lease(prefix: str, name: str, attempt: int, task: Mapping[str, Any]) -> End | None:
    """Hold the resources of this Ray task while the node's actor runs ``task``.

    None if the node has no actor yet.
    """
    import ray  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - runs under Ray

    context = ray.get_runtime_context()
    try:
        host = ray.get_actor(prefix + context.get_node_id())
    except ValueError:
        return None
    gpus = ",".join(context.get_accelerator_ids().get("GPU", []))
    # ray.get would give this task's CPUs to others while it waits.
    end: End = host.run.remote(name, attempt, gpus, task).future().result()
    return end


def versions() -> dict[str, str]:
    """Return the versions of Python and of PyTorch, which is not imported."""
    spec = find_spec("torch")
    version = spec and spec.origin and Path(spec.origin).with_name("version.py")
    torch = runpy.run_path(str(version))["__version__"] if version and version.exists() else "none"
    return {"Python": ".".join(platform.python_version_tuple()[:2]), "PyTorch": str(torch)}
