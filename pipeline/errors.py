"""The one exception that is the user's to mend."""


class UserError(Exception):
    """One sentence that names the key or file that is wrong and how to mend it.

    Stages and the command line print it as ``error: ...`` and exit with status 2;
    everything else that is raised is our bug and keeps its traceback.
    """
