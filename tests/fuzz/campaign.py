"""Campaign over the readers: processes with bounded memory, which are killed if they hang."""

import json
import os
import selectors
import signal
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz import worker

PATIENCE = 120  # seconds without a line after which a process is killed
STARTS = 600  # seconds in which a process must have written its valid files


@dataclass
class Row:
    """Outcomes of one reader, and an example of each finding."""

    reader: str
    counts: Counter[str] = field(default_factory=Counter)
    findings: dict[str, str] = field(default_factory=dict)

    def add(self, line: dict[str, Any]) -> None:
        self.counts[line["outcome"]] += 1
        if line["outcome"] == "finding":
            self.counts["findings"] += line["about"] not in self.findings
            example = f"file {line['number']}, {line.get('file')}: {line.get('text', '')}"
            self.findings.setdefault(line["about"], example)


def run(readers: Iterable[str], seed: int, each: int) -> list[Row]:
    """Return the outcomes of ``each`` damaged files of every reader."""
    return [_run(reader, seed, each) for reader in readers]


def _run(reader: str, seed: int, each: int) -> Row:
    row, number = Row(reader), 0
    while number < each:
        lines, reason = _process(reader, seed, number, each)
        for line in lines:
            row.add(line)
        number += len(lines)
        if number < each:
            row.add({"outcome": "finding", "about": f"the process {reason}", "number": number})
            number += 1
            if not lines and reason.startswith("exit"):
                raise RuntimeError(f"{reader}: {reason}")
    return row


def _process(reader: str, seed: int, start: int, stop: int) -> tuple[list[dict[str, Any]], str]:
    """Return the lines of a forked process, and how it ended."""
    output, results = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.close(output)
            worker.serve(reader, seed, range(start, stop), results)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(results)
    lines, reason = _lines(output)
    os.close(output)
    if reason:
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    ended = f"died of signal {-code}" if code < 0 else f"exited with {code}"
    return lines, reason or ended


def _lines(output: int) -> tuple[list[dict[str, Any]], str]:
    """Return the lines that come from a process, and why no more are waited for, if so."""
    lines: list[dict[str, Any]] = []
    buffer, patience = b"", STARTS
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while selector.select(patience):
            data = os.read(output, 65536)
            if not data:
                return lines, ""
            *whole, buffer = (buffer + data).split(b"\n")
            lines += [json.loads(line) for line in whole]
            patience = PATIENCE
    return lines, f"hung for {patience} s"
