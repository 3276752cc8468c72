"""Signals that stop a run before and after its stages, with one sentence as after ^C."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from pipeline.process import die_with_parent

INTERRUPTED = 130  # the exit status of a command that ^C ended, in shells
STOPPED = "stopped: finished stages are kept, and the next run continues\n"
LATER = 0.01  # seconds until an interruption that Python dropped is raised once more
_interruptions: list[int] = []  # the signals that raised KeyboardInterrupt


def stop_by_signals() -> None:
    """Let SIGINT and the first SIGTERM and SIGHUP raise KeyboardInterrupt, unless ignored.

    Under ``dvc repro`` the kernel sends SIGTERM when the process dvc ends: once for each of its
    threads. While stages run, the driver takes these signals as a request to stop.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _raise_once)
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _raise)
    if "DVC_STAGE" in os.environ:
        die_with_parent(signal.SIGTERM)


def _raise_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    _raise(number, frame)


def _raise(number: int, _: FrameType | None) -> None:
    _interruptions.append(number)
    raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[None]:
    """Run the block of a process that signals may stop at any time, and then ignore them.

    An interrupted process ends without Python's own end, which would close generators that were
    interrupted; one of DVC starts a thread then, and waits for it for ever.
    """
    hook = sys.unraisablehook
    _interruptions.clear()
    try:
        sys.unraisablehook = partial(_raise_later, hook)
        stop_by_signals()
        yield
    except KeyboardInterrupt:
        _end(STOPPED)
    except Exception:
        if _interruptions:  # pydantic, for one, raises its own error from KeyboardInterrupt
            _end(STOPPED)
        raise
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _end()
        raise
    finally:  # a signal while Python ends would show a traceback
        for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        sys.unraisablehook = hook


def _raise_later(hook: Callable[[Any], object], dropped: Any) -> None:
    """Raise an interruption once more that hit a ``__del__``, where Python shows and drops it."""
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        signal.signal(signal.SIGALRM, _raise_once)
        signal.setitimer(signal.ITIMER_REAL, LATER)
    else:
        hook(dropped)


def _end(sentence: str = "") -> NoReturn:
    sys.stderr.write(sentence)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(INTERRUPTED)
