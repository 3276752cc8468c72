"""The command of a stage behind ``SMS_LAUNCH``, a prefix such as ``srun --ntasks=1``."""

import math
import os
import re
import shlex
import shutil
from collections.abc import Sequence

from pipeline.errors import UserError
from pipeline.run.interfaces import Task

LAUNCH = "SMS_LAUNCH"
FIELDS = ("{name}", "{cpus}", "{gpus}")
SIGNALS = range(129, 193)  # 128 + the number of the signal that ended a command, as srun exits


def read() -> tuple[str, ...]:
    """Return the words of ``SMS_LAUNCH``, none where it is unset.

    Raises:
        UserError: it is no command line, names an unknown field, or its program does not exist.
    """
    text = os.environ.get(LAUNCH, "")
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(
            f"{LAUNCH} is {text!r}, but must be a command line ({error}): correct or unset it"
        ) from error
    unknown = sorted(set(re.findall(r"\{\w*\}", text)) - set(FIELDS))
    if unknown:
        raise UserError(
            f"{LAUNCH} has {unknown[0]}, but must have no fields other than {', '.join(FIELDS)}: "
            "correct it"
        )
    if words and not shutil.which(words[0]):
        raise UserError(
            f"{LAUNCH} begins with {words[0]!r}, but there is no such program here: correct or "
            "unset it"
        )
    return words


def fill(prefix: Sequence[str], name: str, task: Task) -> list[str]:
    """Return ``prefix`` with the stage's name and its numbers of CPUs and whole GPUs."""
    values = (name, f"{math.ceil(task.cpus)}", f"{math.ceil(task.gpus)}")
    filled = list(prefix)
    for field, value in zip(FIELDS, values, strict=True):
        filled = [word.replace(field, value) for word in filled]
    return filled


def status(code: int) -> int:
    """Return the exit status of a stage's command, or minus its signal, from its prefix's."""
    return 128 - code if code in SIGNALS else code
