"""Tables of what was measured on a GPU: rows that `make intake` has put into docs/data/."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from pipeline.report.statistics import Difference, difference, spread
from pipeline.report.tables.markdown import number, signed, table

RUNS, MEASURES = Path("docs/data/runs.csv"), Path("docs/data/card.csv")
PAPER = Path("pipeline/report/paper")
FIGURE = Path("docs/images/gpu-phase.png")
NOTHING = "Not measured yet.\n"
SOUP = "sms_uniform"
RIVALS = {"imp": "IMP", "imp_mx": "IMP, m times longer", "imp_reprune": "IMP-RePrune"}
# Names of runs: what they are about, and where in the paper they stand: table, data, network.
NAMES = {
    "table5": ("CIFAR-10 images, ResNet-18, on a GPU", ("CIFAR-10", "ResNet-18", 3)),
    "resnet20": ("CIFAR-10 images, ResNet-20, on a GPU", None),
}
# Our methods as method, merge and role of the paper's tables.
_PAPER = {
    SOUP: ("SMS", "uniform", "soup"),
    "sms_greedy": ("SMS", "greedy", "soup"),
    "best_candidate": ("SMS", "uniform", "best_candidate"),
    "imp": ("IMP", "", "model"),
    "imp_mx": ("IMP_mx", "", "model"),
    "imp_reprune": ("IMP-RePrune", "", "model"),
}
Values = dict[tuple[str, int], dict[int, float]]  # method, phase -> seed -> test accuracy


def runs(root: Path, name: str) -> Iterator[pd.DataFrame]:
    """Give the rows of each experiment of ``name`` or ``name-...``, equal golden numbers pooled.

    Of several sets of golden numbers the newest counts, and of a row that was measured twice the
    last measurement.
    """
    path = root / RUNS
    if not path.exists():
        return
    own = pd.read_csv(path, dtype={"experiment": str, "golden": str, "commit": str})
    own = own[(own["name"].str.partition("-")[0] == name) & (own["card"] != "CPU")]
    for _, group in own.groupby("experiment", sort=False):
        newest = group[group["golden"] == group["golden"].iloc[-1]]
        yield newest.drop_duplicates(["method", "phase", "seed"], keep="last")


def results(name: str, root: Path) -> str:
    """Return a table an experiment: ours, the paper's number, and the soup minus its rivals."""
    parts = [_results(root, own, NAMES[name][1]) for own in runs(root, name)]
    return "\n".join(parts) or NOTHING


def _results(root: Path, own: pd.DataFrame, paper: tuple[str, str, int] | None) -> str:
    values, seeds = _values(own), own["seed"].nunique()
    lines = []
    for method, phase in sorted(values, key=lambda key: (key[1], key[0] != SOUP, key[0])):
        found = spread(list(values[method, phase].values()))
        theirs = _paper(root, method, phase, own, paper)
        beside = ["-", "-"]
        if theirs is not None and found is not None:
            beside = [f"{theirs[0]:.2f} ± {theirs[1]:.2f}", signed(100 * found.mean - theirs[0])]
        minus = _minus(values, method, phase) if method in RIVALS else None
        place = f"{100 * own[own['phase'] == phase]['sparsity'].median():.2f} %"
        lines.append([place, _name(method), number(found, seeds), *beside, _points(minus)])
    heads = ["sparsity", "", "test accuracy (%)", "paper", "difference", "soup minus this"]
    facts = {
        key: ", ".join(dict.fromkeys(own[key].astype(str))) for key in ("card", "torch", "date")
    }
    about = "; ".join(facts.values())
    commits = ", ".join(dict.fromkeys(own["commit"]))
    settings = own["settings"].iloc[-1]
    return f"{table(heads, lines, 2)}\n{seeds} seeds; {about}; commit {commits}; `{settings}`\n"


def _values(own: pd.DataFrame) -> Values:
    """Return test accuracies; a soup's best candidate is a method too."""
    values: Values = {}
    for row in own.to_dict("records"):
        key, seed = (str(row["method"]), int(row["phase"])), int(row["seed"])
        values.setdefault(key, {})[seed] = float(row["test_score"])
        best = row.get("best_candidate_test_score")
        if key[0] == SOUP and pd.notna(best):
            values.setdefault(("best_candidate", key[1]), {})[seed] = float(best)
    return values


def _minus(values: Values, method: str, phase: int) -> Difference | None:
    return difference(values.get((SOUP, phase), {}), values[method, phase])


def _points(found: Difference | None) -> str:
    if found is None:
        return ""
    text = signed(100 * found.mean)
    if found.interval is None:
        return text
    low, high = (f"{100 * end:+.2f}" for end in found.interval)
    text += f" ({low} to {high})"
    return f"**{text}**" if found.reading in {"better", "worse"} else text


def _name(method: str) -> str:
    own = {"dense": "dense", SOUP: "SMS uniform", "sms_greedy": "SMS greedy"}
    return (own | RIVALS | {"best_candidate": "its best candidate"}).get(method, method)


def _paper(
    root: Path, method: str, phase: int, own: pd.DataFrame, where: tuple[str, str, int] | None
) -> tuple[float, float] | None:
    """Return the paper's mean and standard deviation for the same row, if it has one."""
    if where is None or (method != "dense" and method not in _PAPER):
        return None
    data, network, m = where
    file = "dense.csv" if method == "dense" else "prune_after_training.csv"
    theirs = pd.read_csv(root / PAPER / file).fillna({"merge": ""})
    theirs = theirs[(theirs["dataset"] == data) & (theirs["arch"] == network)]
    if method != "dense":
        target, phases = round(100 * own["sparsity"].max(), 1), int(own["phase"].max())
        same = {"n_phases": phases, "phase": phase, "target_sparsity": target}
        same |= dict(zip(("method", "merge", "role"), _PAPER[method], strict=True))
        same |= {"pruning": "unstructured", "metric": "top1"}
        for column, value in same.items():
            theirs = theirs[theirs[column] == value]
        theirs = theirs[theirs["m"].isna() | (theirs["m"] == m)]
    if len(theirs) != 1:
        return None
    return float(theirs["mean"].iloc[0]), float(theirs["std"].iloc[0])


def short(root: Path) -> list[list[str]]:
    """Return the GPU's lines of "in short": the soup minus its rivals at each sparsity."""
    lines = []
    for name, (label, _) in NAMES.items():
        for own in runs(root, name):
            values, seeds = _values(own), str(own["seed"].nunique())
            first = [f"[{label}](gpu.md)", seeds]
            for phase in sorted({phase for method, phase in values if method == SOUP}):
                sparsity = 100 * own[own["phase"] == phase]["sparsity"].median()
                found = [
                    _minus(values, rival, phase) if (rival, phase) in values else None
                    for rival in ("best_candidate", "imp", "imp_mx")
                ]
                cells = [_points(one).partition(" (")[0] for one in found]
                bold = [f"{c}**" if c.startswith("**") else c for c in cells]
                lines.append([*first, f"{sparsity:.0f} %", *bold])
                first = ["", ""]
    return lines


def measures(root: Path, measure: str) -> pd.DataFrame:
    """Return the measurements of one kind that scripts have made on a card, the last of each."""
    path = root / MEASURES
    if not path.exists():
        return pd.DataFrame()
    own = pd.read_csv(path)
    own = own[(own["measure"] == measure) & (own["card"] != "CPU")]
    return own.dropna(axis=1, how="all")


def loop(root: Path) -> str:
    """Return images a second of each way to train, beside the obvious one and the card's peak."""
    own = measures(root, "loop")
    if own.empty:
        return NOTHING
    lines = []
    for (card, network), group in own.groupby(["card", "network"], sort=False):
        obvious = group[group["way"] == "obvious"]["images_per_s"]
        for row in group.to_dict("records"):
            speed = float(row["images_per_s"])
            ratio = f"{speed / float(obvious.iloc[-1]):.2f}" if len(obvious) else "-"
            share = row.get("share_of_peak")
            part = f"{100 * float(share):.1f} %" if share and pd.notna(share) else "-"
            about = f"{card}, torch {row['torch']}, {row['date']}"
            lines.append(
                [
                    str(network),
                    str(row["way"]),
                    f"{row['jobs']:g}",
                    f"{speed:,.0f}",
                    ratio,
                    part,
                    about,
                ]
            )
    heads = ["network", "way", "jobs", "images/s", "to obvious", "of the peak", "card"]
    return table(heads, [[*line[:2], *line[2:]] for line in lines], 2)


def peak(root: Path) -> str:
    """Return the measured rate of bf16 matrix products of each card."""
    own = measures(root, "peak")
    if own.empty:
        return NOTHING
    lines = [
        [str(row["card"]), f"{row['size']:g}", f"{row['tflops']:.0f}", row["torch"], row["date"]]
        for row in own.to_dict("records")
    ]
    return table(["card", "square of", "TFLOP/s", "torch", "date"], lines)


def phases(root: Path) -> str:
    """Return the wall time of one phase for each m, and the figure."""
    own = measures(root, "phase")
    if own.empty:
        return NOTHING
    lines = [
        [f"{row['m']:g}", f"{row['jobs']:g}", f"{row['seconds']:.1f}",
         f"{row['card']}, torch {row['torch']}, {row['date']}"]
        for row in own.to_dict("records")
    ]  # fmt: skip
    text = table(["m", "jobs", "seconds", "card"], lines, 0)
    return f"{text}\n![Wall time of one phase against m](images/{FIGURE.name})\n"


def figure(root: Path) -> None:
    """Draw the wall time of one phase against m, where it was measured."""
    own = measures(root, "phase")
    if own.empty:
        return
    from matplotlib.figure import Figure  # noqa: PLC0415 - seconds, and seldom

    chart = Figure(figsize=(5, 3.2), layout="constrained")
    axes = chart.subplots()
    for jobs, group in own.sort_values("m").groupby("jobs"):
        axes.plot(group["m"], group["seconds"], marker="o", label=f"{jobs:g} at once")
    axes.set(xlabel="candidates m", ylabel="seconds of one phase", xlim=(0, None), ylim=(0, None))
    axes.legend()
    (root / FIGURE).parent.mkdir(parents=True, exist_ok=True)
    chart.savefig(root / FIGURE, dpi=120, metadata={"Software": None})


def cifar10(root: Path) -> str:
    """Return README's lines on CIFAR-10 beside the paper; nothing until they are measured."""
    text = results("table5", root)
    return "" if text == NOTHING else text


TABLES: dict[str, Callable[[Path], str]] = {
    "gpu_peak": peak,
    "gpu_loop": loop,
    "gpu_phase": phases,
    "cifar10_paper": cifar10,
    **{f"gpu_{name}": partial(results, name) for name in NAMES},
}
