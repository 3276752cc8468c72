"""The engine that runs the commands of stages: the one that ``SMS_ENGINE`` names."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.errors import UserError
from pipeline.run import launch_prefix
from pipeline.run.interfaces import Engine
from pipeline.run.local import LocalEngine
from pipeline.run.machine import default_jobs
from pipeline.run.outside_files import Reader
from pipeline.run.ray_cluster import ENGINE


def choose(
    root: Path,
    jobs: int | None,
    gpu_jobs: int,
    readers: Callable[[], Iterable[Reader]] = tuple,
) -> Engine:
    """Return the engine for the repository ``root``: local (by default) or ray.

    ``readers`` returns the stages to run that read files outside the graph.

    Raises:
        UserError: SMS_ENGINE names no engine, SMS_LAUNCH is no program, Ray is not installed, or
            its cluster does not fit.

    """
    name, prefix = os.environ.get(ENGINE) or "local", launch_prefix.read()
    if name == "local":
        return LocalEngine(root, jobs or default_jobs(), gpu_jobs=gpu_jobs, prefix=prefix)
    if name == "ray" and prefix:
        raise UserError(
            f"{launch_prefix.LAUNCH} and {ENGINE}=ray are both set, but must not be: unset one"
        )
    if name == "ray":
        # Six modules, which a run on this machine does not need.
        from pipeline.run.ray_engine import RayEngine  # noqa: PLC0415

        return RayEngine(root, jobs, gpu_jobs=gpu_jobs, readers=readers)
    raise UserError(f"{ENGINE} is {name!r}, but must be local or ray: set or unset it.")
