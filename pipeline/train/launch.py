"""Multi-GPU training stages: one process a GPU, started and ended together by torchrun."""

import argparse
import errno
import logging
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from pipeline.errors import NO_SPACE, UserError
from pipeline.events import note
from pipeline.process import GPUS_PER_STAGE, die_with_parent, gpus_per_stage
from pipeline.train.device import resolve_device
from pipeline.train.distributed import rank

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

Main = Callable[[argparse.Namespace], None]
PARENT = "SMS_LAUNCHER"  # id of the process that launched the group; unset if torchrun was typed


def on_all_gpus(main: Main) -> Main:
    """Return a command that runs the stage ``main`` in ``SMS_GPUS_PER_STAGE`` processes.

    Under torchrun, started here or by hand, a process joins the group before ``main``. On a
    machine without GPUs the processes share its cores.
    """

    def command(flags: argparse.Namespace) -> None:
        if dist.is_torchelastic_launched():
            _member(main, flags)
            return
        count = gpus_per_stage()
        note(gpus=count)
        if count > 1:
            _launch(count)
        else:
            main(flags)

    return command


def leave_group() -> bool:
    """Leave the group; return whether this process continues alone: only the first does."""
    first = rank() == 0
    if dist.is_initialized():
        dist.destroy_process_group()
        os.environ["LOCAL_WORLD_SIZE"] = "1"  # it may use all cores now
    return first


def _launch(count: int) -> None:
    """Run this command as ``torchrun --nproc-per-node COUNT -m MODULE ...`` would."""
    from torch.distributed.elastic.multiprocessing.api import SignalException  # noqa: PLC0415
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.run import parse_args, run  # noqa: PLC0415

    module = sys.modules["__main__"].__spec__
    assert module is not None, "a stage runs as a module"
    words = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={count}"]
    os.environ[PARENT] = str(os.getpid())
    logging.disable(logging.CRITICAL)  # torchrun's long report; the sentence is below
    with TemporaryDirectory() as notes:
        words += [f"--log-dir={notes}", "-m", module.name, *sys.argv[1:]]
        try:
            run(parse_args(words))  # type: ignore[no-untyped-call]
        except ChildFailedError as error:
            number, failure = min(error.failures.items(), key=lambda item: _failure_time(item[1]))
            reason = _failure_reason(failure)
        except SignalException as stopped:
            sys.exit(128 + stopped.sigval)
        else:
            return
    if reason.startswith("UserError: "):
        raise UserError(reason.removeprefix("UserError: "))
    if any(word in reason for word in NO_SPACE):
        raise OSError(errno.ENOSPC, reason)
    sys.exit(f"error: process {number} of {count} failed, which ended the others: {reason}")


def _failure_reason(failure: "ProcessFailure") -> str:
    """Return the error that the process recorded, as ``ValueError: ...``, or its exit status."""
    noted = failure.error_file_data["message"]
    if isinstance(noted, dict):
        return str(noted["message"])
    return failure.message if failure.exitcode < 0 else f"exit status {failure.exitcode}"


def _failure_time(failure: "ProcessFailure") -> float:
    """Return when the process failed, finer than torchrun's time, which has only seconds.

    The first to fail records its error, or was killed and records none (0 here). The others fail
    later, on closed connections, or are ended by torchrun (infinity).
    """
    if failure.exitcode == -signal.SIGTERM:
        return math.inf
    record = Path(failure.error_file)
    return record.stat().st_mtime if record.exists() else 0.0


def _member(main: Main, flags: argparse.Namespace) -> None:
    """Run ``main`` as one of the processes."""
    from torch.distributed.elastic.multiprocessing.errors import record  # noqa: PLC0415

    die_with_parent(signal.SIGKILL)
    if os.environ.get(PARENT, str(os.getppid())) != str(os.getppid()):
        sys.exit(1)  # the launcher has ended already
    try:
        record(_join_and_run)(main, flags)
    except UserError:
        if PARENT in os.environ:  # the launcher prints the error, once
            sys.exit(2)
        raise


def _join_and_run(main: Main, flags: argparse.Namespace) -> None:
    gpu = resolve_device(flags.device).type == "cuda"
    if gpu:
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise UserError(
                f"{os.environ['LOCAL_WORLD_SIZE']} processes train together, one a GPU, but "
                f"PyTorch sees {there} here: lower {GPUS_PER_STAGE}"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if gpu else "gloo")
    main(flags)
