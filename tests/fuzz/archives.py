"""Damage to tar archives: members that are gone, damaged or elsewhere, and a bomb."""

import functools
import gzip
import io
import random
import tarfile
from collections.abc import Callable


@functools.cache
def bomb() -> bytes:
    """Return a compressed archive whose member has 400 MB of zeros."""
    content, info = io.BytesIO(), tarfile.TarInfo("run.json")
    info.size = 400_000_000
    with gzip.open(content, "wb", 1) as file:
        file.write(info.tobuf())
        for _ in range(40):
            file.write(bytes(10_000_000))
    return content.getvalue()


def of_archive(
    content: bytes,
    rng: random.Random,
    inside: Callable[[bytes, str, random.Random], bytes],
    outside: Callable[[bytes, random.Random], bytes],
) -> bytes:
    """Return a tar archive, compressed as before, with one member or its header changed.

    ``inside`` damages a member by its suffix, and ``outside`` the archive before its compression.
    """
    packed = content[:2] == b"\x1f\x8b"
    if packed and rng.random() < 0.02:
        return bomb()
    with tarfile.open(fileobj=io.BytesIO(content)) as old:
        members = [(info, old.extractfile(info).read()) for info in old.getmembers()]  # type: ignore[union-attr]
    number = rng.randrange(len(members))
    info, data = members[number]
    kind = rng.randrange(4)
    if kind == 0:
        del members[number]
    elif kind == 1:  # names and kinds that leave the folder, or are another member's
        info.name = rng.choice(["../outside", "/outside", "run.json", "x/y", "\udcff", "a\nb"])
        info.type = rng.choice([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE,
                                tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE])  # fmt: skip
        info.linkname = rng.choice(["", "/etc/passwd", "../../outside", "run.json"])
    else:
        members[number] = info, inside(data, info.name[info.name.rfind(".") :], rng)
    result = io.BytesIO()
    with tarfile.open(fileobj=result, mode="w") as new:
        for info, data in members:
            info.size = len(data)
            new.addfile(info, io.BytesIO(data))
    plain = result.getvalue()
    if rng.random() < 0.2:
        plain = outside(plain, rng)
    return gzip.compress(plain, 1) if packed else plain
