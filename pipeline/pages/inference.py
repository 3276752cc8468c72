"""Tables of benchmarks/inference.py, from docs/data/inference.csv."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipeline.pages.seeds import NOTHING
from pipeline.pages.stored import Row
from pipeline.pages.stored import rows as rows_of
from pipeline.report.tables.markdown import NONE, table

DATA = Path("docs/data/inference.csv")
OURS = "this project"
RIVALS = ("torch", "torch, channels_last", "torch.compile", "ONNX Runtime", "OpenVINO")
LOW = "OpenVINO, bfloat16"  # another precision: shown, but no rival
GOALS_AT = ("64", "1")  # batch and threads
GOALS = {"90 % uniform": 2.0, "95 % uniform": 4.0, "98 % uniform": 8.0, "98 % global": 2.5}
ORDER = (*GOALS, "dense")  # of the networks


def latency(batch: str, threads: str, root: Path) -> str:
    """Return milliseconds an image of all contenders, and ours compared with the fastest ones."""
    rows = _rows(root, batch, threads)
    if not rows:
        return NOTHING
    lines, with_goals = [], (batch, threads) == GOALS_AT
    for network in dict.fromkeys(row["network"] for row in rows):
        times = {row["contender"]: row["ms"] for row in rows if row["network"] == network}
        ratios = [f"**{_ratio(times, RIVALS)}**", _ratio(times, (LOW,))]
        cells = [times.get(name, NONE) for name in (*RIVALS, LOW, OURS)]
        goal = f"{GOALS[network]:g}x" if network in GOALS else NONE
        lines.append([network, *cells, *ratios, *([goal] if with_goals else [])])
    headers = ["ResNet-18, ms an image", *RIVALS, LOW, OURS, "to the fastest float32"]
    headers.append("to bfloat16")
    return table([*headers, *(["goal"] if with_goals else [])], lines)


def _ratio(times: dict[str, str], rivals: tuple[str, ...]) -> str:
    """Return the time of the fastest of ``rivals`` over ours."""
    known = [float(times[name]) for name in rivals if name in times]
    return f"{min(known) / float(times[OURS]):.1f}x" if known else NONE


def _rows(root: Path, batch: str, threads: str) -> list[Row]:
    """Return the stored rows of one setting, by network; none before a measurement."""
    path = root / DATA
    stored = rows_of(path) if path.exists() else []
    rows = [row for row in stored if (row["batch"], row["threads"]) == (batch, threads)]
    return sorted(rows, key=lambda row: _place(row["network"]))


def _place(network: str) -> int:
    return ORDER.index(network) if network in ORDER else len(ORDER)


def limits(root: Path) -> str:
    """Return products, rates and the largest difference of our outputs, at batch 64, one thread."""
    rows = _rows(root, *GOALS_AT)
    if not rows:
        return NOTHING
    lines = []
    for row in (row for row in rows if row["contender"] == OURS):
        products = float(row["gmacs"]) * float(row["ms"])
        versions = f"torch {row['torch']}, ONNX Runtime {row['onnxruntime']}"
        cells = [row["network"], f"{products:.1f}", f"{4 * products:.0f}", row["gmacs"]]
        machine = [f"{row['cpu']}, {row['isa']}", f"{versions}, OpenVINO {row['openvino']}"]
        lines.append([*cells, row["difference"], *machine, row["date"]])
    headers = ["", "MMAC an image", "MB of input vectors", "GMAC/s", "difference of outputs"]
    return table([*headers, "CPU", "versions", "date"], lines)


TABLES: dict[str, Callable[[Path], str]] = {
    "inference_limits": limits,
    **{
        f"inference_{batch}_{threads}": partial(latency, batch, threads)
        for batch in ("64", "1")
        for threads in ("1", "2")
    },
}
