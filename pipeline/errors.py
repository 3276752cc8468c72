"""The exception for mistakes in parameters, files and flags."""

LONGEST = 2000  # characters of a sentence


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


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
