"""The exception for mistakes in parameters, files and flags."""


class UserError(Exception):
    """A mistake of the user: one sentence that names the key or file and how to correct it.

    Stages and the command line print it as ``error: ...`` and exit with status 2. Any other
    exception is a bug and keeps its traceback.
    """
