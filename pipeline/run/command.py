"""The command of a stage: run as a Python module where it is one, else in a shell."""

import os
import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

LAUNCHER = "stages/run"
PLAIN = re.compile(r"[\w ./:=,+@%'\"-]+")  # a command line that no shell would change
ON_THE_CPU = {  # the scripts of stages/ that have no flag --device
    "compare",
    "corrupt",
    "evaluate",
    "list_corruptions",
    "prepare",
    "prune",
    "prune_copies",
    "shrink",
}
SHELL_FLAGS = {"bash": ["--noprofile", "--norc"], "zsh": ["--no-rcs"]}  # the same as DVC's


def as_module(commands: Sequence[str]) -> dict[str, Any] | None:
    """Return module and arguments of ``stages/run NAME ...``, and None for any other command."""
    if len(commands) != 1 or not PLAIN.fullmatch(commands[0]):
        return None
    try:
        program, *words = shlex.split(commands[0])
    except ValueError:
        return None
    if program != LAUNCHER or not words or not words[0].isidentifier():
        return None
    return {"module": f"stages.{words[0]}", "arguments": words[1:]}


def uses_gpu(commands: Sequence[str]) -> bool:
    """Return whether a stage computes on a GPU where there is one.

    A script without the flag ``--device`` does not, nor does one that is told ``--device cpu``;
    any other command is taken to.
    """
    what = as_module(commands)
    if what is None:
        return True
    name, words = what["module"].removeprefix("stages."), what["arguments"]
    return name not in ON_THE_CPU and ("--device", "cpu") not in pairwise(words)


def in_shell(commands: Sequence[str]) -> list[str]:
    """Return the arguments with which the user's shell runs ``commands``, as DVC calls it."""
    shell = os.environ.get("SHELL") or "/bin/sh"
    line = commands[0] if len(commands) == 1 else " && ".join(f"({one}\n)" for one in commands)
    return [shell, *SHELL_FLAGS.get(Path(shell).name, []), "-c", line]
