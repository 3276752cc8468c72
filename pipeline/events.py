"""Progress of a running stage: a line on standard output, and a JSON event for the driver."""

import json
import os
import sys
from pathlib import Path


def note(**fields: str | int | float) -> None:
    """Append ``fields`` as one JSON line to the file ``SMS_EVENTS``, if the driver has set it.

    Artifacts do not depend on it.
    """
    events = os.environ.get("SMS_EVENTS")
    if events:
        with Path(events).open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")


def emit(**fields: str | int | float) -> None:
    """Print ``fields`` (epoch, loss, accuracy, ...), as ``epoch 3  loss 0.41``, and `note` them."""
    note(**fields)
    text = "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in fields.items()
    )
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
