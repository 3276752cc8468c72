"""What a running stage tells the world: one line for people, one JSON event for the driver."""

import json
import os
import sys
from pathlib import Path


def note(**fields: str | int | float) -> None:
    """Tell the driver ``fields``, where it asked for events by naming a file in ``SMS_EVENTS``.

    They are appended there as one JSON line. Nothing of it reaches an artifact.
    """
    events = os.environ.get("SMS_EVENTS")
    if events:
        with Path(events).open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")


def emit(**fields: str | int | float) -> None:
    """Report ``fields`` (epoch, epochs, loss, accuracy, ...) of the running stage.

    Prints ``epoch 3/10  loss 0.41``, and tells the driver.
    """
    note(**fields)
    text = "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in fields.items()
    )
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
