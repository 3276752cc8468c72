"""Process that reads damaged files with bounded memory: one line of JSON for each file."""

import json
import os
import random
import resource
import shutil
import signal
import tempfile
import traceback
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.errors import UserError
from tests.fuzz.mutations import damaged
from tests.fuzz.readers import READERS, ROOT, Reader

MEMORY = 2 * 2**30  # bytes of address space beyond those of an idle process
SECONDS = 10  # of processor time
LONGEST = 2000  # characters of a sentence
UNUSUAL = 0.03  # share of the files that are missing or folders


class TooLongError(BaseException):
    """Reading a file took more than `SECONDS`."""


def serve(name: str, seed: int, numbers: range, results: int) -> None:
    """Read the files ``numbers`` of the reader ``name``; write a line for each to a descriptor."""
    warnings.simplefilter("ignore")
    reader, place = READERS[name], Path(tempfile.mkdtemp())
    folder, cwd = place / "files", place / "cwd"
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        folder.mkdir()
        cwd.mkdir()
        os.chdir(cwd)
        reader.write(folder)
        files = sorted(
            path for each in reader.files for path in folder.glob(each) if path.is_file()
        )
        reader.read(folder)
        os.dup2(nowhere, 2)
        _limit()
        for number in numbers:
            result = _case(reader, files, random.Random(f"{name} {seed} {number}"), folder)
            if list(cwd.iterdir()) or {path.name for path in place.iterdir()} != {"files", "cwd"}:
                result = {"outcome": "finding", "about": "a file outside was written"}
            os.write(results, json.dumps({"number": number, **result}).encode() + b"\n")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _limit() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))

    def stop(signum: int, frame: FrameType | None) -> None:
        raise TooLongError

    signal.signal(signal.SIGPROF, stop)


def _case(reader: Reader, files: list[Path], rng: random.Random, folder: Path) -> dict[str, Any]:
    """Damage one of ``files``, read all, and say how it ended."""
    path = rng.choice(files)
    content = path.read_bytes()
    try:
        path.unlink()
        if rng.random() < UNUSUAL:
            if rng.random() < 0.5:
                path.mkdir()
        else:
            path.write_bytes(damaged(content, path.suffix, rng))
        return _read(reader, folder, path) | {"file": path.relative_to(folder).as_posix()}
    finally:
        if path.is_dir():
            path.rmdir()
        path.write_bytes(content)


def _read(reader: Reader, folder: Path, path: Path) -> dict[str, Any]:
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        reader.read(folder)
    except UserError as error:
        return _sentence(str(error), path)
    except (Exception, TooLongError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f"{Path(f.filename).relative_to(ROOT)}:{f.lineno}" for f in frames
                if f.filename.startswith(str(ROOT / "pipeline"))]  # fmt: skip
        where = ours[-1] if ours else "?"
        about = f"{type(error).__name__} at {where}"
        return {"outcome": "finding", "about": about, "text": str(error)[:300]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return {"outcome": "accepted"}


def _sentence(sentence: str, path: Path) -> dict[str, Any]:
    """Return the outcome for a refusal, which must be one line that names the file."""
    named = path.name in sentence or path.parent.name in sentence or path.stem in sentence
    if not (sentence and sentence.isprintable() and len(sentence) <= LONGEST and named):
        return {"outcome": "finding", "about": f"the sentence: {sentence[:150]}"}
    return {"outcome": "refused", "text": sentence[:300]}
