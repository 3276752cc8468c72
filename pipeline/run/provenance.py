"""The PyTorch and hardware that made each result, recorded beside the lock file.

A stage reports ``torch``, ``device``, ``threads`` and, where it trains, ``gpus``, as an event
(pipeline/stagekit/cli.py, pipeline/train/launch.py). The key of a record is the hash of the stage's
output. The folder ``provenance`` in DVC's cache has the records of all results so far;
stages/provenance.json, which is committed, has those of the results in the lock file. Artifacts
contain no provenance, so that it changes no hash and re-runs no stage.
"""

import json
import os
import runpy
import subprocess
from collections import defaultdict
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pipeline.process import cpu_name, gpus_per_stage, threads
from pipeline.run.dvc_files import outputs
from pipeline.run.interfaces import Graph, Outcome
from pipeline.run.machine import gpus
from pipeline.run.ray_cluster import elsewhere
from pipeline.storage.atomic_files import atomic_file
from pipeline.storage.durable_files import durable_file

FILE = "stages/provenance.json"
FIELDS = ("torch", "device", "threads", "gpus")
OUTPUT = "output"  # the key of a record: the hash of the output

Record = dict[str, Any]


class Results(Graph, Protocol):
    """A graph whose outputs have hashes and lie in a cache folder."""

    cache: Path

    def output(self, name: str) -> str:
        """Return the hash of the output of a stage that is up to date."""


def provenance(root: Path) -> dict[str, Record]:
    """Return torch, device, threads and gpus of each result in the lock file that has a record.

    A result that plain DVC made has none.
    """
    hashes = outputs(root / "stages" / "dvc.lock")
    return {
        name: {field: record[field] for field in FIELDS if field in record}
        for name, record in _read(root / FILE).items()
        if name in hashes and isinstance(record, dict) and record.get(OUTPUT) == hashes[name]
    }


class Provenance:
    """A listener that records PyTorch and device of results, and compares those of cached ones."""

    def __init__(self, root: Path, graph: Results) -> None:
        self.graph, self.file = graph, root / FILE
        self.store = graph.cache / "provenance"
        self.before = _read(self.file)
        self.reported: dict[str, Record] = defaultdict(dict)
        self.records: dict[str, Record] = {}
        self.cached: list[str] = []

    def started(self, name: str) -> None:
        """Drop earlier events of the stage."""
        self.reported.pop(name, None)

    def event(self, name: str, fields: Record) -> None:
        """Keep the fields of a record."""
        self.reported[name] |= {field: fields[field] for field in FIELDS if field in fields}

    def finished(self, name: str, outcome: Outcome, seconds: float) -> None:  # noqa: ARG002
        """Read the record of a cached stage; that of one that ran is there already (`record`)."""
        if outcome == "cached":
            self.cached.append(name)
            output, known = self.graph.output(name), self.before.get(name)
            known = known if isinstance(known, dict) else {}
            record = known if known.get(OUTPUT) == output else _read(self._stored(output))
            if record:
                self.records[name] = record

    def record(self, name: str) -> None:
        """Write the record of a stage whose outputs have hashes; it survives a loss of power."""
        if self.reported[name]:
            record = {OUTPUT: self.graph.output(name), **self.reported[name]}
            with durable_file(self._stored(record[OUTPUT])) as file:
                file.write_text(_text(record), encoding="utf-8")
            self.records[name] = record

    def write(self) -> None:
        """Write the records of the graph's stages, if they have changed, sorted by name."""
        old = {name: record for name, record in self.before.items() if name in self.graph.inputs}
        records = old | self.records
        if records != self.before:
            with atomic_file(self.file) as file:
                file.write_text(_text(records), encoding="utf-8")

    def warning(self) -> str | None:
        """Return a sentence about the cached results of another PyTorch or hardware, if any."""
        differing = {name: self._differences(name) for name in self.cached}
        others = {name: differences for name, differences in differing.items() if differences}
        if not others:
            return None
        example, differences = next(iter(others.items()))
        return (
            f"{len(others)} of {len(self.cached)} cached results were made with another PyTorch, "
            f"device or number of threads, such as {example} ({'; '.join(differences)}): they are "
            "used as they are, but made here they might differ in their last bits"
        )

    def _differences(self, name: str) -> list[str]:
        record, here = self.records.get(name, {}), self._here(name)
        return [
            f"{field} {record[field]}, here {' or '.join(map(str, here[field]))}"
            for field in FIELDS
            if field in record and here.get(field) and record[field] not in here[field]
        ]

    def _here(self, name: str) -> dict[str, list[Any]]:
        """Return the values that the stage may report here; empty where they are not known."""
        return {
            "torch": [self._torch["__version__"]] if self._torch else [],
            "device": [] if elsewhere() else self._devices(name),
            "threads": [threads()],
            "gpus": [gpus_per_stage()],
        }

    def _devices(self, name: str) -> list[Any]:
        return self._gpu_names if self._gpus and name in self.graph.gpu else [self._cpu]

    @cached_property
    def _torch(self) -> dict[str, Any]:
        """The version of PyTorch and what it was built for, without importing it."""
        spec = find_spec("torch")
        if spec is None or spec.origin is None:
            return {}
        return runpy.run_path(str(Path(spec.origin).with_name("version.py")))

    @cached_property
    def _gpus(self) -> bool:
        built_for = self._torch.get("cuda") or self._torch.get("hip")
        return bool(built_for and gpus(os.environ))

    @cached_property
    def _gpu_names(self) -> list[str]:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
            return sorted(set(done.stdout.splitlines()))
        return []

    @cached_property
    def _cpu(self) -> str:
        return cpu_name()

    def _stored(self, output: str) -> Path:
        return self.store / f"{output}.json"


def _read(file: Path) -> dict[str, Any]:
    """Return the content of a file of records; empty for one that is missing or damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _text(records: Record) -> str:
    return json.dumps(records, sort_keys=True, indent=1) + "\n"
