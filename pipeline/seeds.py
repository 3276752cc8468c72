"""Named seeds: an independent random stream for every source of randomness."""

import hashlib


def derive(seed: int, *names: str | int) -> int:
    """Return the seed in [0, 2**31) of the stream ``names`` under ``seed``, from its SHA-256 hash.

    Equal arguments give equal seeds on every machine and Python version (unlike ``hash``); seeds
    of different names, as ("retrain", 1, 0) and ("retrain", 1, 1), are independent.
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
