"""Runs pytest in forks of one process, which has imported the large libraries once.

Plugins of pytest are not among them: pytest rewrites their assertions as it imports them.

Reads requests from its input, a JSON list [arguments, file for the output, seconds] a line, and
answers each with the exit status, or null if no test ended for so many seconds, or not all in
ten times as many.
"""

import gc
import json
import os
import signal
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

LIBRARIES = (
    *("torch", "torchvision", "numpy", "scipy.stats", "pandas", "sklearn.datasets", "skimage"),
    *("dvc.repo", "dvc.cli", "pydantic", "ruamel.yaml", "yaml", "rich", "matplotlib.pyplot"),
)
BROKEN = 70  # the exit status where pytest itself ends with an exception


def run(arguments: list[str], output: str, seconds: float) -> int | None:
    """Return the exit status of pytest in a fork, or None, killed after ``seconds`` of nothing."""
    process = os.fork()
    if not process:
        os.setsid()
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(file, 1)
        os.dup2(file, 2)
        status = BROKEN
        try:
            status = import_module("pytest").main(arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    begin = since = time.monotonic()
    size = 0
    while time.monotonic() < min(since + seconds, begin + 10 * seconds):
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
        if (grown := Path(output).stat().st_size if Path(output).exists() else 0) != size:
            size, since = grown, time.monotonic()
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    for name in LIBRARIES:
        import_module(name)
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(run(*json.loads(line))), flush=True)  # noqa: T201
