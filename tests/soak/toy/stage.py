"""Toy stage: the soak puts it in the place of every script of stages/.

It writes a few kilobytes that follow from its arguments and its inputs, in two steps that an
interruption may part, and metrics; and it notes in the trial's folder that it has ended.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Run the stage."""
    out = Path(arguments[arguments.index("--out") + 1])
    digest = hashlib.sha256(repr(arguments).encode())
    for word in arguments:
        if word.startswith("artifacts/") and Path(word) != out:
            digest.update((Path(word) / "value").read_bytes())
    share = digest.digest()[0] / 255
    out.mkdir(parents=True)
    (out / "value").write_bytes(digest.digest() * 128)
    with Path(os.environ["SMS_EVENTS"]).open("a") as events:
        events.write(json.dumps({"epoch": 1, "epochs": 1, "loss": 1 - share}) + "\n")
    time.sleep(0.05 * share)
    (out / "metrics.json").write_text(json.dumps({"test_score": share, "metric": "accuracy"}))
    with Path(os.environ["SMS_FAULTS"], "ended").open("a") as ended:
        ended.write(f"{out.name}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
