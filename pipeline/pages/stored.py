"""Tables of the results in docs/data/, and README's tables."""

import csv
import math
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path

from scipy import special

from pipeline.pages import gpu
from pipeline.report.tables.markdown import NONE, table

DATA = Path("docs/data")
Row = dict[str, str]

# The rows of README's first table.
METHODS = {
    "sms_uniform": "SMS uniform, m = 3",
    "sms_greedy": "SMS greedy, m = 3",
    "imp": "IMP",
    "imp_mx": "IMP, 3 times longer",
    "imp_reprune": "IMP-RePrune",
}
# The table "short" has lines of these tables of docs/data/soup_minus.csv, under these titles.
SHORT = {
    "four_classes": "[four classes of CIFAR-10 as ImageNet]"
    "(#imagenets-format-four-classes), ResNet-8",
    "cifar10_folder": "[CIFAR-10 images]"
    "(#cifar-10-images-from-a-folder-three-seeds-two-sparsities), ResNet-8",
    "camvid": "[CamVid](#segmentation-camvid), PSPNet (mean IoU)",
    "multi30k": "[Multi30k](#translation-multi30k), T5-tiny (BLEU)",
}
CELEBA = "[Celeb-A](#celeb-a-by-group), ResNet-8"
RIVALS = ("best candidate", "IMP", "IMP, 3 times longer")


def rows(path: Path) -> list[Row]:
    """Return the rows of a CSV file; all cells are text."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digits(root: Path) -> str:
    """Return the table of the default run, from reports/results.csv."""
    results = {
        (row["method"], int(row["phase"])): row for row in rows(root / "reports/results.csv")
    }
    final = max(phase for _, phase in results)
    phases = range(1, final + 1)
    sparsities = [float(results["sms_uniform", phase]["sparsity"]) for phase in phases]
    headers = [f"{round(100 * sparsity, 1):g} %" for sparsity in sparsities]
    lines = []
    for method, name in METHODS.items():
        by_phase = [results.get((method, phase)) for phase in phases]
        cells = [_percent(row["test_score"]) if row else NONE for row in by_phase]
        last = results[method, final]
        robust, speed = _percent(last["ood_accuracy_15"]), f"{float(last['speedup']):.1f}x"
        lines.append([name, *cells, robust, speed])
    title = f"test accuracy (%), dense {_percent(results['dense', 0]['test_score'])}"
    more = [f"corrupted images, {headers[-1]}", "theoretical speed-up"]
    return table([title, f"{headers[0]} sparse", *headers[1:], *more], lines)


def readme(root: Path) -> str:
    """Return README's tables: the default run's, and Table 5's last phase once it is measured."""
    return "\n".join(text for text in (digits(root), gpu.table5_final(root)) if text)


def _percent(fraction: str) -> str:
    return f"{100 * float(fraction):.2f}"


def plain(file: str, names: int, root: Path) -> str:
    """Return a file of docs/data/ unchanged; its first ``names`` columns are text."""
    with (root / DATA / file).open(encoding="utf-8", newline="") as lines:
        headers, *cells = csv.reader(lines)
    return table(headers, cells, names)


def soup_minus(name: str, root: Path) -> str:
    """Return each method's score at every sparsity and the soup minus it, bold if significant."""
    selected = [row for row in rows(root / DATA / "soup_minus.csv") if row["table"] == name]
    headers, lines = [""], {row["row"]: [row["row"]] for row in selected}
    for sparsity, group in groupby(selected, lambda row: row["sparsity"]):
        headers += [f"{100 * float(sparsity):g} % sparse", "soup minus", ""]
        for row in group:
            minus, above = "", ""
            if row["minus"]:
                minus = f"{row['minus']} ({row['low']} to {row['high']})"
                minus = f"**{minus}**" if _significant(row) else minus
                above = f"{row['above']} of {row['seeds']}"
            lines[row["row"]] += [f"{row['mean']} ± {row['std']}", minus, above]
    return table(headers, lines.values())


def short(root: Path) -> str:
    """Return SMS uniform minus its rivals on all data sets, bold if significant."""
    stored = rows(root / DATA / "soup_minus.csv")
    lines = gpu.summary(root)
    for name, title in SHORT.items():
        selected = [row for row in stored if row["table"] == name]
        first: list[str] = []
        for sparsity, group in groupby(selected, lambda row: row["sparsity"]):
            by_name = {row["row"]: row for row in group}
            best = next(row for row in by_name if row.endswith("best candidate"))
            cells = [by_name[row] for row in (best, *RIVALS[1:])]
            first = first or [title, cells[0]["seeds"]]
            place = f"{100 * float(sparsity):.0f} %"
            lines.append([*first, place, *map(_bold, cells)])
            first = ["", ""]
    return table(["data, network", "seeds", "sparsity", *RIVALS], [*lines, *_celeba_short(root)])


def _celeba_short(root: Path) -> list[list[str]]:
    differences = {
        (row["sparsity"], row["against"]): _with_interval(row)
        for row in rows(root / DATA / "celeba_soup_minus.csv")
        if row["measure"] == "top-1 (%)"
    }
    lines: list[list[str]] = []
    for sparsity in dict.fromkeys(sparsity for sparsity, _ in differences):
        rivals = ("SMS uniform, best candidate", "IMP", "IMP 3\u00d7 longer")
        cells = [differences[sparsity, rival] for rival in rivals]
        first = [CELEBA, cells[0]["seeds"]] if not lines else ["", ""]
        lines.append([*first, f"{sparsity} %", *map(_bold, cells)])
    return lines


def _bold(row: Row) -> str:
    return f"**{row['minus']}**" if _significant(row) else row["minus"]


def _significant(row: Row) -> bool:
    """Return whether the 95 % interval of a difference excludes 0."""
    return float(row["low"]) > 0 or float(row["high"]) < 0


def _with_interval(row: Row) -> Row:
    """Return a difference over n seeds with its interval mean ± t(0.975, n - 1) · std / √n."""
    n, mean = int(row["seeds"]), float(row["mean"])
    half = float(special.stdtrit(n - 1, 0.975)) * float(row["std"]) / math.sqrt(n)
    return row | {"minus": row["mean"], "low": f"{mean - half:.4f}", "high": f"{mean + half:.4f}"}


def celeba(root: Path) -> str:
    """Return accuracies and recalls of each group, mean ± standard deviation."""
    cells: dict[tuple[str, str], list[str]] = {}
    headers = ["sparsity", ""]
    for row in rows(root / DATA / "celeba_groups.csv"):
        place = "-" if row["sparsity"] == "0" else f"{row['sparsity']} %"
        text = f"{row['mean']} ± {row['std']}"
        text += f" ({row['low']} to {row['high']})" if row["low"] else ""
        cells.setdefault((place, row["row"]), []).append(text)
        if row["measure"] not in headers:
            headers.append(row["measure"])
    return table(headers, [[*key, *texts] for key, texts in cells.items()], 2)


def celeba_minus(root: Path) -> str:
    """Return the soup minus its rivals by group; significant ones are called better or worse."""
    cells: dict[tuple[str, str, str], list[str]] = {}
    headers = ["sparsity", "", "against"]
    for row in map(_with_interval, rows(root / DATA / "celeba_soup_minus.csv")):
        text = f"{row['mean']} ± {row['std']}"
        if _significant(row):
            text += " (better)" if float(row["mean"]) > 0 else " (worse)"
        key = f"{row['sparsity']} %", row["soup"], row["against"]
        cells.setdefault(key, []).append(text)
        if row["measure"] not in headers:
            headers.append(row["measure"])
    return table(headers, [[*key, *texts] for key, texts in cells.items()], 3)


TABLES: dict[str, Callable[[Path], str]] = {
    "readme": readme,
    "short": short,
    "celeba_groups": celeba,
    "celeba_soup_minus": celeba_minus,
    "corrupted": partial(plain, "corrupted.csv", 1),
    "loop_cpu": partial(plain, "loop_cpu.csv", 2),
    "loading": partial(plain, "loading.csv", 1),
    "filters_removed": partial(plain, "filters_removed.csv", 1),
    "dpf_intervals": partial(plain, "dpf_intervals.csv", 1),
    "engines": partial(plain, "engines.csv", 2),
    "graph_seconds": partial(plain, "graph_seconds.csv", 1),
    "merge_memory": partial(plain, "merge_memory.csv", 1),
    "merge_statistics": partial(plain, "merge_statistics.csv", 1),
    "study_soup_size": partial(plain, "study_soup_size.csv", 2),
    "study_soup_size_enough": partial(plain, "study_soup_size_enough.csv", 2),
    "study_sparsity": partial(plain, "study_sparsity.csv", 3),
    "study_breaking_point": partial(plain, "study_breaking_point.csv", 1),
    "study_variation": partial(plain, "study_variation.csv", 2),
    "study_dynamic_masks": partial(plain, "study_dynamic_masks.csv", 3),
    **{name: partial(soup_minus, name) for name in SHORT},
}
