"""The process that logs for the driver: it reads messages, a JSON line each, from its input."""

import json
import os
import queue
import re
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.track.log import Log

PERIOD = 1.0  # seconds between two writes of live values
Message = tuple[str, int, dict[str, Any]]  # a method of Log, when it happened, its arguments


def tell(kind: str, text: str) -> None:
    """Send a line to the driver, unless it has ended."""
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps([kind, text]) + "\n")
        sys.stdout.flush()


def receive(inbox: "queue.SimpleQueue[Message]") -> None:
    """Move the driver's messages to ``inbox`` at once, so that it never waits for MLflow."""
    for line in sys.stdin:
        method, stamp, fields = json.loads(line)
        inbox.put((method, stamp, fields))
    inbox.put(("close", time.time_ns() // 1_000_000, {"status": "KILLED"}))  # the driver has ended


def _without_password(address: str) -> str:
    """Return ``address`` without the user and the password in it, which may contain an @."""
    return re.sub(r"//[^/\s]*@", "//", address)


def _reason(error: Exception) -> str:
    return _without_password((str(error).strip() or repr(error)).splitlines()[0][:300])


def serve(log: "Log", inbox: "queue.SimpleQueue[Message]") -> bool:
    """Log the messages of ``inbox`` until one is close; say whether the next run need log nothing.

    A soup that cannot be registered is a warning. Where the network itself is the reason, which is
    a `UserError`, the next run would not register it either.
    """
    due, complete = time.monotonic() + PERIOD, True
    while True:
        try:
            method, log.clock, fields = inbox.get(timeout=max(0.0, due - time.monotonic()))
            try:
                getattr(log, method)(**fields)
            except Exception as error:
                if method != "register":
                    raise
                again = (
                    "" if isinstance(error, UserError) else ", which the next `dvc repro` repeats"
                )
                complete = complete and not again
                text = f"{fields['name']} is not registered in MLflow{again}: {_reason(error)}"
                tell("warning", text)
            if method == "open":
                tell("run", log.parent)
            if method == "close":
                return complete
        except queue.Empty:
            pass
        if time.monotonic() >= due:
            log.flush()
            due = time.monotonic() + PERIOD


def main() -> None:
    """Log for the driver; if MLflow fails, send it the reason in one sentence and end."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=receive, args=(inbox,), daemon=True).start()
    log = None
    try:
        # Imported here, while the thread reads the pipe, so that a broken MLflow is caught.
        from pipeline.track.log import Log  # noqa: PLC0415

        log = Log(sys.argv[1] or None)
        complete = serve(log, inbox)
    except Exception as error:
        address = _without_password(os.environ["MLFLOW_TRACKING_URI"])
        tell(
            "warning",
            f"MLflow at {address} refuses this run, which goes on "
            f"untracked (`dvc repro` logs it from the cache once MLflow works): {_reason(error)}",
        )
        with suppress(Exception):
            if log is not None:
                log.close("KILLED")
        complete = False
    sys.exit(0 if complete else 1)


if __name__ == "__main__":
    main()
