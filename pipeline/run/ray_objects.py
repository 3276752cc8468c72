"""Inputs of stages as objects in Ray's store, for nodes that do not see the driver's folder."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.run.ray_files import pack, unpack
from pipeline.storage import disk_space

LARGE = 2**20  # bytes of a file that is an object of its own; smaller ones are one together
PACKAGES = ("pipeline", "stages")


class Objects:
    """Artifacts and versions of code, each put into the store once."""

    def __init__(self, ray: Any, root: Path) -> None:
        self.ray, self.root = ray, root
        self.references: dict[str, Any] = {}  # by key
        self.sent = self.received = 0  # bytes put into the store, and bytes of outputs

    def code(self, folder: Path) -> Any:
        """Return the object with the project's code in ``folder``."""
        files = [
            str(file.relative_to(folder))
            for package in PACKAGES
            for file in sorted((folder / package).rglob("*"))
            if file.is_file() and file.suffix in {"", ".c", ".csv", ".py"}
        ]
        return self._put("code", folder, files)

    def of(self, inputs: Mapping[str, str], outside: Iterable[str] = ()) -> dict[str, Any] | None:
        """Return the objects that have ``inputs``, by key; None if one is outside the folder.

        Those that ``outside`` names by an absolute path are left out: all nodes see them.
        """
        seen = {os.path.relpath(path, self.root) for path in outside if Path(path).is_absolute()}
        small: dict[str, str] = {}
        parts: list[dict[str, str]] = []
        for path in sorted(inputs.keys() - seen):
            content = inputs[path]
            place = self.root / path
            if Path(path).is_absolute() or path.startswith(".."):
                return None
            if place.is_dir() or place.stat().st_size > LARGE:
                parts.append({path: content})
            else:
                small[path] = content
        objects = {}
        for files in [*parts, small] if small else parts:
            key = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:32]
            objects[key] = self._put(key, self.root, files)
        return objects

    def _put(self, key: str, root: Path, paths: Iterable[str]) -> Any:
        if key not in self.references:
            data = pack(root, paths)
            self.sent += len(data)
            self.references[key] = self.ray.put(data)
        return self.references[key]

    def keep(self, archive: bytes, outputs: Iterable[str]) -> int:
        """Move the ``outputs`` in ``archive`` to their places; return the stage's exit status."""
        self.received += len(archive)
        try:
            with tempfile.TemporaryDirectory(dir=self.root / ".dvc" / "tmp" / "sms") as temporary:
                arrived = Path(temporary, "outputs")
                unpack(archive, arrived)
                for output in outputs:
                    if (arrived / output).exists():
                        shutil.rmtree(self.root / output, ignore_errors=True)  # of a lost run
                        (self.root / output).parent.mkdir(parents=True, exist_ok=True)
                        shutil.move(arrived / output, self.root / output)
        except OSError as error:
            if disk_space.shortage(error):
                return disk_space.STATUS
            raise
        return 0
