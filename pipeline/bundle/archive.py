"""Archives of a bundle's run, unpacked to temporary folders; damaged ones are refused."""

import gzip
import hashlib
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError
from pipeline.storage import disk_space

MOST = 2**28  # bytes of an unpacked NAME-results.tar.gz
CHUNK = 2**20
END = 2 * tarfile.BLOCKSIZE  # of zeros, after the last member
FAULTS = (OSError, EOFError, ValueError, OverflowError, RecursionError, tarfile.TarError)
NETWORK = re.compile(r"artifacts(/[^/]+(/model\.safetensors)?)?")


@contextmanager
def results(file: Path) -> Iterator[Path]:
    """Give a temporary folder with the contents of ``file``, a run's NAME-results.tar.gz.

    Raises:
        UserError: the file is missing, is damaged, or unpacks to more than `MOST` bytes.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain, size = Path(folder, "archive.tar"), 0
        try:
            with gzip.open(file) as source, plain.open("wb") as target:
                while chunk := source.read(CHUNK):  # to the end, where the check sum is
                    size += len(chunk)
                    if size > MOST:
                        raise UserError(
                            f"{file} unpacks to more than {MOST:,} bytes, which no run's results "
                            "do: leave it out"
                        )
                    target.write(chunk)
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(str(file), error) from error
        yield _unpacked(plain, str(file), Path(folder, "files"))


@contextmanager
def networks(file: Path) -> Iterator[Path | None]:
    """Give a temporary folder with the networks of the parts beside ``file``, or None without any.

    Raises:
        UserError: a part is missing or damaged, or has other files than networks.
    """
    stem = f"{file.name.removesuffix('-results.tar.gz')}-networks.tar"
    parts = {
        int(path.suffix[1:]): path
        for path in file.parent.iterdir()
        if path.stem == stem and path.suffix[1:].isdecimal()
    }
    if not parts:
        yield None
        return
    if missing := set(range(len(parts))) - parts.keys():
        raise UserError(f"{file.parent / stem}.{min(missing)} is missing: copy it again")
    name = f"{file.parent / stem}.{len(parts) - 1}, or one of the parts before it,"
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "archive.tar")
        try:
            with plain.open("wb") as target:
                for number in range(len(parts)):
                    with parts[number].open("rb") as source:
                        shutil.copyfileobj(source, target)
            whole = _has_digest(plain, file.with_name(stem).with_suffix(".sha256"))
        except OSError as error:
            raise _damaged(name, error) from error
        if not whole:
            raise UserError(
                f"{file.parent / stem}.* are no parts of one archive: copy them again, or, if the "
                "run was killed while it wrote them, remove them and take in the rest"
            )
        yield _unpacked(plain, name, Path(folder, "files"), NETWORK) / "artifacts"


def _has_digest(plain: Path, digest: Path) -> bool:
    """Say whether the file ``digest`` has the hash of ``plain``; older runs wrote none."""
    if not digest.exists():
        return True
    with plain.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest().encode() == digest.read_bytes().strip()
        )


def _unpacked(plain: Path, name: str, folder: Path, allowed: re.Pattern[str] | None = None) -> Path:
    """Unpack the uncompressed archive ``plain``, which the user knows as ``name``."""
    size = plain.stat().st_size
    try:
        with tarfile.open(plain, "r:") as archive:
            members = archive.getmembers()
            if sum(member.size for member in members) > size:
                raise UserError(f"{name} unpacks to more than its size: copy it again")
            with plain.open("rb") as file:  # tarfile takes a damaged header for the end
                file.seek(archive.offset)
                if file.read(END) != bytes(END):
                    raise EOFError("it ends early")
            for member in members:
                if allowed and not allowed.fullmatch(member.name):
                    raise UserError(f"{name} has {member.name}, which is no network: copy it again")
            archive.extractall(folder, filter="data")
    except FAULTS as error:
        raise _damaged(name, error) from error
    return folder


def _damaged(name: str, error: Exception) -> UserError:
    """Return the error for an archive that cannot be read, or for a full disk."""
    if sentence := disk_space.shortage(error):
        return UserError(sentence)
    if isinstance(error, FileNotFoundError):
        return UserError(f"{name} does not exist: correct its name")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return UserError(f"{name} is no complete archive ({reason}): copy it again")
