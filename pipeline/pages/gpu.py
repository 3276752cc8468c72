"""Tables of GPU measurements: the rows that `make intake` has added to docs/data/.

docs/data/runs.csv has a row per method, phase and seed of each run; docs/data/card.csv has a row
per measurement of benchmarks/card.py. Rows of the card "CPU" are rehearsals and left out.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pipeline.pages.seeds import BEST_CANDIDATE, NOTHING, SOUP, Scores, newest, points, soup_minus
from pipeline.pages.seeds import name as method_name
from pipeline.pages.seeds import scores as scores_of
from pipeline.plan.declared import declared
from pipeline.report import labels
from pipeline.report.figures import style
from pipeline.report.paper.lookup import AFTER, paper_table
from pipeline.report.statistics import spread
from pipeline.report.tables.markdown import NONE, number, signed, table

RUNS, MEASURES = Path("docs/data/runs.csv"), Path("docs/data/card.csv")
BATCHNORM = Path("docs/data/batchnorm.csv")
FIGURE = Path("docs/images/gpu-phase.png")
RIVALS = (BEST_CANDIDATE, "imp", "imp_mx")  # in the summary


class PaperRows(NamedTuple):
    """The data set, network and m of the paper's rows of the same experiment."""

    dataset: str
    arch: str
    m: int


# Names of runs: a title, and the paper's rows if the experiment is the paper's.
NAMES = {
    "table5": ("CIFAR-10 images, ResNet-18, on a GPU", PaperRows("CIFAR-10", "ResNet-18", 3)),
    "resnet20": ("CIFAR-10 images, ResNet-20, on a GPU", None),
}


def runs(root: Path, name: str) -> Iterator[pd.DataFrame]:
    """Yield the rows of each experiment of the runs called ``name`` or ``name-...``.

    Commits with equal golden numbers are pooled; of several sets of golden numbers only the newest
    is kept, and of equal method, phase and seed the last row.
    """
    path = root / RUNS
    if not path.exists():
        return
    rows = pd.read_csv(path, dtype={"experiment": str, "golden": str, "commit": str})
    rows = rows[(rows["name"].str.partition("-")[0] == name) & (rows["card"] != "CPU")]
    for _, experiment in rows.groupby("experiment", sort=False):
        yield newest(experiment).drop_duplicates(["method", "phase", "seed"], keep="last")


def results(name: str, root: Path) -> str:
    """Return a table per experiment: our score, the paper's, and the soup minus each baseline."""
    return "\n".join(_results(rows, NAMES[name][1]) for rows in runs(root, name)) or NOTHING


def _results(rows: pd.DataFrame, paper: PaperRows | None) -> str:
    scores, seeds = scores_of(rows), rows["seed"].nunique()
    lines = []
    for method, phase in _order(scores):
        ours = spread(list(scores[method, phase].values()))
        theirs = _paper_number(method, phase, rows, paper)
        compared = [NONE, NONE]
        if theirs is not None and ours is not None:
            mean, std = theirs
            compared = [_cell(mean, std), signed(100 * ours.mean - mean)]
        baseline = method in declared(SOUP).baselines
        gain = soup_minus(scores, method, phase) if baseline else None
        names = [_sparsity(rows, phase), method_name(method)]
        lines.append([*names, number(ours, seeds), *compared, points(gain)])
    headers = ["sparsity", "", "test accuracy (%)", "paper", "difference", "soup minus this"]
    machine = "; ".join(
        ", ".join(dict.fromkeys(rows[key].astype(str))) for key in ("card", "torch", "date")
    )
    commits = ", ".join(dict.fromkeys(rows["commit"]))
    settings = rows["settings"].iloc[-1]
    count = "one seed" if seeds == 1 else f"{seeds} seeds"
    return f"{table(headers, lines, 2)}\n{count}; {machine}; commit {commits}; `{settings}`\n"


def _order(scores: Scores) -> list[tuple[str, int]]:
    """Return methods and phases by phase, the soup first."""
    return sorted(scores, key=lambda key: (key[1], key[0] != SOUP, key[0]))


def _cell(mean: float, std: float) -> str:
    return f"{mean:.2f} ± {std:.2f}"


def _sparsity(rows: pd.DataFrame, phase: int) -> str:
    return labels.sparsity(rows[rows["phase"] == phase]["sparsity"].median())


def _paper_number(
    method: str, phase: int, rows: pd.DataFrame, paper: PaperRows | None
) -> tuple[float, float] | None:
    """Return the paper's mean and standard deviation for the same method and phase, or None."""
    lineage = SOUP if method == BEST_CANDIDATE else method
    name = declared(lineage).paper.get(AFTER)
    if paper is None or (method != "dense" and name is None):
        return None
    theirs = paper_table("dense" if method == "dense" else AFTER)
    theirs = theirs[(theirs["dataset"] == paper.dataset) & (theirs["arch"] == paper.arch)]
    if method != "dense":
        merged = theirs["method"].str.cat(theirs["merge"].fillna(""), " ").str.strip()
        theirs = theirs[(merged == name) & (theirs["m"].isna() | (theirs["m"] == paper.m))]
        roles = ["best_candidate"] if method == BEST_CANDIDATE else ["model", "soup"]
        theirs = theirs[theirs["role"].isin(roles)]
        same = {
            "n_phases": int(rows["phase"].max()),
            "phase": phase,
            "target_sparsity": round(100 * rows["sparsity"].max(), 1),
            "pruning": "unstructured",
            "metric": "top1",
        }
        for column, value in same.items():
            theirs = theirs[theirs[column] == value]
    if len(theirs) != 1:
        return None
    return float(theirs["mean"].iloc[0]), float(theirs["std"].iloc[0])


def summary(root: Path) -> list[list[str]]:
    """Return the GPU's lines of the table "short": the soup minus its rivals at each sparsity."""
    lines = []
    for name, (title, _) in NAMES.items():
        for rows in runs(root, name):
            scores, seeds = scores_of(rows), str(rows["seed"].nunique())
            first = [f"[{title}](gpu.md)", seeds]
            for phase in sorted({phase for method, phase in scores if method == SOUP}):
                sparsity = 100 * rows[rows["phase"] == phase]["sparsity"].median()
                gains = [points(soup_minus(scores, rival, phase)) for rival in RIVALS]
                means = [text.partition(" (")[0] for text in gains]
                cells = [f"{mean}**" if mean.startswith("**") else mean for mean in means]
                lines.append([*first, f"{sparsity:.0f} %", *cells])
                first = ["", ""]
    return lines


def measurements(root: Path, measure: str) -> pd.DataFrame:
    """Return the rows of docs/data/card.csv of one kind."""
    path = root / MEASURES
    if not path.exists():
        return pd.DataFrame()
    rows = pd.read_csv(path)
    rows = rows[(rows["measure"] == measure) & (rows["card"] != "CPU")]
    return rows.dropna(axis=1, how="all")


def loop(root: Path) -> str:
    """Return images per second of each training loop, and the ratios to plain PyTorch and peak."""
    rows = measurements(root, "loop")
    if rows.empty:
        return NOTHING
    lines = []
    for (card, network), group in rows.groupby(["card", "network"], sort=False):
        plain = group[group["way"] == "obvious"]["images_per_s"]
        for row in group.to_dict("records"):
            speed, share = float(row["images_per_s"]), row.get("share_of_peak")
            lines.append(
                [
                    str(network),
                    str(row["way"]),
                    f"{row['jobs']:g}{' by MPS' if str(row.get('mps')) == 'True' else ''}",
                    f"{speed:,.0f}",
                    f"{speed / float(plain.iloc[-1]):.2f}" if len(plain) else NONE,
                    f"{100 * float(share):.1f} %" if share and pd.notna(share) else NONE,
                    f"{card}, torch {row['torch']}, {row['date']}",
                ]
            )
    headers = ["network", "way", "jobs", "images/s", "to obvious", "of the peak", "card"]
    return table(headers, lines, 2)


def peak(root: Path) -> str:
    """Return the measured rate of bf16 matrix products of each card."""
    rows = measurements(root, "peak")
    if rows.empty:
        return NOTHING
    lines = [
        [str(row["card"]), f"{row['size']:g}", f"{row['tflops']:.0f}", row["torch"], row["date"]]
        for row in rows.to_dict("records")
    ]
    return table(["card", "square of", "TFLOP/s", "torch", "date"], lines)


def step(root: Path) -> str:
    """Return the time of a training step by kind of kernel."""
    rows = measurements(root, "step")
    if rows.empty:
        return NOTHING
    lines = []
    for (card, network), group in rows.groupby(["card", "network"], sort=False):
        row, run = group.iloc[-1], group.reindex(columns=["commit", "torch", "date"]).fillna("")
        latest = group[(run == run.iloc[-1]).all(axis=1)].drop_duplicates("kind", keep="last")
        whole = float(latest["microseconds"].sum())
        where = f"{card}, torch {row['torch']}, {row['date']}"
        for kind, each in zip(latest["kind"], latest["microseconds"], strict=True):
            lines.append([network, kind, f"{each:,.0f}", f"{100 * each / whole:.1f} %", where])
        lines.append([network, "all", f"{whole:,.0f}", "100 %", where])
    return table(["network", "kernels", "microseconds a step", "share", "card"], lines, 2)


def phases(root: Path) -> str:
    """Return the wall time of one phase for each m, and the figure."""
    rows = measurements(root, "phase")
    if rows.empty:
        return NOTHING
    lines = [
        [f"{row['m']:g}", f"{row['jobs']:g}", f"{row['seconds']:.1f}",
         f"{row['card']}, torch {row['torch']}, {row['date']}"]
        for row in rows.to_dict("records")
    ]  # fmt: skip
    text = table(["m", "jobs", "seconds", "card"], lines, 0)
    return f"{text}\n![Wall time of one phase against m](images/{FIGURE.name})\n"


def draw_phases(root: Path) -> None:
    """Write the figure of the wall time of one phase against m, if it was measured."""
    rows = measurements(root, "phase")
    if rows.empty:
        return
    with style.look():
        figure, (axes,) = style.new(3.6)
        for jobs, group in rows.sort_values("m").groupby("jobs"):
            axes.plot(group["m"], group["seconds"], marker="o", label=f"{jobs:g} at once")
        axes.set(xlabel="candidates m", ylabel="seconds of one phase")
        axes.set(xlim=(0, None), ylim=(0, None))
        style.legend(figure, axes)
        (root / FIGURE).parent.mkdir(parents=True, exist_ok=True)
        style.save(figure, root / FIGURE)


def table5_final(root: Path) -> str:
    """Return Table 5's last phase, ours and the paper's, a column a method; "" until measured."""
    experiments = list(runs(root, "table5"))
    if not experiments:
        return ""
    rows, paper = experiments[-1], NAMES["table5"][1]
    scores, seeds, final = scores_of(rows), rows["seed"].nunique(), int(rows["phase"].max())
    title = f"CIFAR-10, ResNet-18, {_sparsity(rows, final)} sparse"
    columns = [[title, "test accuracy (%)", "[the paper's](docs/gpu.md#table-5-of-the-paper)"]]
    for method, phase in _order(scores):
        if phase == final:
            ours = number(spread(list(scores[method, phase].values())), seeds)
            theirs = _paper_number(method, phase, rows, paper)
            columns.append([method_name(method), ours, NONE if theirs is None else _cell(*theirs)])
    headers, *lines = zip(*columns, strict=True)
    return table(headers, lines)


def batchnorm(root: Path) -> str:
    """Return the accuracy of networks by the images that re-estimate BatchNorm."""
    path = root / BATCHNORM
    if not path.exists():
        return NOTHING
    lines = [
        [f"{row['network']}, {labels.sparsity(row['sparsity'])} sparse",
         f"{row['train_images']:,}", f"{row['test_images']:,}",
         f"{100 * row['plain']:.2f}", f"{100 * row['augmented']:.2f}", str(row["date"])]
        for row in pd.read_csv(path).to_dict("records")
    ]  # fmt: skip
    headers = ["network", "training images", "test images", "plain (%)", "augmented (%)", "date"]
    return table(headers, lines)


TABLES: dict[str, Callable[[Path], str]] = {
    "gpu_batchnorm": batchnorm,
    "gpu_peak": peak,
    "gpu_loop": loop,
    "gpu_step": step,
    "gpu_phase": phases,
    **{f"gpu_{name}": partial(results, name) for name in NAMES},
}
