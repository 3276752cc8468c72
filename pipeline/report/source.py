"""The folder of artifacts: JSON where there is some, and the names of the stages that left none."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.plan.plan import Plan

Records = list[dict[str, Any]]


@dataclass
class Source:
    """The artifacts in ``folder``; ``missing`` grows by every node that has no result there.

    A node that is in ``missing`` from the start is not looked up. ``renamed`` names the score
    of metrics as the report does (pipeline/report/metric.py).
    """

    folder: Path
    missing: set[str]
    renamed: Callable[[dict[str, Any]], dict[str, Any]] = dict

    def note(self, node: str) -> None:
        """Remember a node that has left no folder."""
        if not (self.folder / node).is_dir():
            self.missing.add(node)

    def metrics(self, node: str | None) -> dict[str, Any]:
        """Return the metrics of ``node``, or nothing, and remember that it has none."""
        found = None if node is None else self._json(node, "metrics.json")
        if isinstance(found, dict):
            return self.renamed(found)
        if node is not None:
            self.missing.add(node)
        return {}

    def evaluated(self, plan: Plan, key: str) -> Any:
        """Return ``key`` of the first evaluation of ``plan`` that has it; None where none has."""
        names = (node.name for node in plan.nodes.values() if node.script == "evaluate")
        found = (self.metrics(name).get(key) for name in names)
        return next((value for value in found if value is not None), None)

    def history(self, node: str) -> Records:
        """Return the epochs of a training; other stages have none."""
        found = self._json(node, "history.json")
        return found if isinstance(found, list) else []

    def size(self, node: str) -> dict[str, int]:
        """Return how many bytes a stored network takes."""
        file = self.folder / node / "model.safetensors"
        if node in self.missing or not file.is_file():
            return {}
        return {"stored_bytes": file.stat().st_size}

    def _json(self, node: str, file: str) -> Any:
        if node in self.missing:
            return None
        try:
            return json.loads((self.folder / node / file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
