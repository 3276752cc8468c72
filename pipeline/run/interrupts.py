"""Signals that stop a run before and after its stages, with one sentence as after ^C."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.process import die_with_parent

INTERRUPTED = 130  # the exit status of a command that ^C ended, in shells
STOPPED = "stopped: finished stages are kept, and the next run continues\n"


def stop_by_signals() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, as SIGINT does, unless they are ignored.

    Under ``dvc repro`` the kernel sends SIGTERM when the process dvc ends. While stages run, the
    driver takes these signals as a request to stop.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    if "DVC_STAGE" in os.environ:
        die_with_parent(signal.SIGTERM)


@contextmanager
def stoppable() -> Iterator[None]:
    """Run the block of a process that signals may stop at any time, and then ignore them."""
    try:
        stop_by_signals()
        yield
    except KeyboardInterrupt:
        sys.stderr.write(STOPPED)
        sys.exit(INTERRUPTED)
    finally:  # a signal while Python ends would show a traceback
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
