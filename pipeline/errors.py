"""The exception for mistakes in parameters, files and flags, and the errors of a small machine."""

import errno

LONGEST = 2000  # characters of a sentence
NO_SPACE_CODES = {errno.ENOSPC, errno.EDQUOT}
NO_SPACE = ("No space left on device", "Disk quota exceeded", "disk is full")  # Rust's, SQLite's
NO_MEMORY = (  # in the errors of PyTorch, oneDNN, threads, and the loader of shared libraries
    "allocate memory",
    "out of memory",
    "bad_alloc",
    "could not create a primitive",
    "can't start new thread",
    "failed to map segment from shared object",
)


class UserError(Exception):
    """A mistake of the user: one sentence that names the key or file and how to correct it.

    Stages and the command line print it as ``error: ...`` and exit with status 2. Any other
    exception is a bug and keeps its traceback. Values, keys and file names in the sentence may have
    any characters: those that are not printable are written as Python escapes, so that the sentence
    stays one line, and of a longer one the middle is left out.
    """

    def __init__(self, sentence: str = "") -> None:
        plain = "".join(each if each.isprintable() else _escape(each) for each in sentence)
        if len(plain) > LONGEST:
            half = LONGEST // 2 - 3
            plain = f"{plain[:half]} ... {plain[-half:]}"
        super().__init__(plain)


def of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that memory is short."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)


def of_disk(error: BaseException) -> bool:
    """Return whether ``error`` says that a disk is full."""
    full = getattr(error, "errno", None) in NO_SPACE_CODES
    return full or any(words in str(error) for words in NO_SPACE)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
