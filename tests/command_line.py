"""The command line of a stage, called in this process (no import of torch) or as a process."""

import io
import runpy
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parent.parent
Done = subprocess.CompletedProcess[str]


def stage(name: str, *flags: object) -> Done:
    """Do what ``python -m stages.NAME FLAGS`` does, and return its status and what it printed."""
    out, error, status = io.StringIO(), io.StringIO(), 0
    argv = [f"stages.{name}", *map(str, flags)]
    with redirect_stdout(out), redirect_stderr(error), mock.patch.object(sys, "argv", argv):
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
                runpy.run_module(argv[0], run_name="__main__")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Done(argv, status, out.getvalue(), error.getvalue())


def process(name: str, *flags: object) -> Done:
    """Run ``python -m stages.NAME FLAGS``."""
    command = [sys.executable, "-m", f"stages.{name}", *map(str, flags)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
