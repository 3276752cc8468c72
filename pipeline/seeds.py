"""Independent named seeds, so that no two sources of randomness share a stream."""

import hashlib


def derive(seed: int, *names: str | int) -> int:
    """Return the seed in [0, 2**31) of the stream called ``names`` under ``seed``.

    Equal arguments give equal seeds on every machine and Python (unlike ``hash``), and seeds
    of different names are independent: ``derive(0, "retrain", 1, 0)`` says nothing about
    ``derive(0, "retrain", 1, 1)``.
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
