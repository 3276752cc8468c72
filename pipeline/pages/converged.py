"""Tables of docs/results.md on converged networks, from the rows by seed in docs/data/."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from pipeline.pages.seeds import (
    BEST_CANDIDATE,
    NOTHING,
    SOUP,
    Scores,
    name,
    newest,
    points,
    scores,
    soup_minus,
)
from pipeline.report import labels
from pipeline.report.statistics import difference, spread
from pipeline.report.tables.markdown import NONE, number, table

ROWS = Path("docs/data/converged.csv")
ONE_COPY, LONGER = "imp", "imp_mx"  # a copy's epochs in a phase, and those of all m copies
MISSED = 0.005  # a difference from the target sparsity that is shown
RIVALS = (BEST_CANDIDATE, ONE_COPY, LONGER, "imp_reprune")


def what_to_use(root: Path) -> str:
    """Return, by data set and sparsity, the soup minus its rivals and the method to use.

    ``IMP, m times longer`` where it is significantly better than the soup; else ``SMS`` where the
    soup is significantly better than it, or than IMP with the epochs of one copy; else ``IMP``.
    """
    lines = []
    for title, rows in _experiments(root):
        values = scores(rows)
        phases = sorted(phase for method, phase in values if method == SOUP)
        for phase in phases:
            lines.append([title, *_line(values, rows, phase), _use(values, phase)])
            title = ""  # noqa: PLW2901 - once for all phases
    headers = ["data, network, epochs", "sparsity", "seeds", "dense", "SMS uniform"]
    return table([*headers, *(f"minus {name(rival)}" for rival in RIVALS), "use"], lines, 2)


def _line(values: Scores, rows: pd.DataFrame, phase: int) -> list[str]:
    soups = values[SOUP, phase]
    sparsity = rows[(rows["method"] == SOUP) & (rows["phase"] == phase)]["sparsity"].median()
    means = [_mean(values["dense", 0]), _mean(soups)]
    gains = [points(soup_minus(values, rival, phase)) or NONE for rival in RIVALS]
    return [labels.sparsity(sparsity), str(len(soups)), *means, *gains]


def _mean(by_seed: dict[int, float]) -> str:
    return number(spread(list(by_seed.values())), len(by_seed))


def _use(values: Scores, phase: int) -> str:
    to_one, to_longer = (soup_minus(values, rival, phase) for rival in (ONE_COPY, LONGER))
    if to_one is None or to_longer is None:
        return NONE
    if to_longer.reading == "worse":
        return name(LONGER)
    return "SMS" if "better" in {to_one.reading, to_longer.reading} else "IMP"


def methods(root: Path) -> str:
    """Return the soup minus every other method, each after its own last phase, by data set.

    Methods that miss the target sparsity are shown with the sparsity that they have.
    """
    columns: list[str] = []
    gains: dict[str, dict[int, str]] = {}  # method -> column -> cell
    for title, rows in _experiments(root):
        values, target = scores(rows), float(rows["target_sparsity"].iloc[0])
        columns.append(f"{title}, {labels.sparsity(target)}")
        last = {method: phase for method, phase in sorted(values) if method != "dense"}
        soups = values[SOUP, last.pop(SOUP)]
        for method, phase in last.items():
            gain = difference(soups, values[method, phase])
            if gain is not None:
                cell = f"{points(gain)}, n = {gain.n}{_missed(rows, method, phase, target)}"
                gains.setdefault(method, {})[len(columns)] = cell
    lines = [
        [name(method), *(cells.get(column, NONE) for column in range(1, len(columns) + 1))]
        for method, cells in sorted(gains.items(), key=lambda item: name(item[0]).lower())
    ]
    return table(["SMS uniform minus", *columns], lines)


def _missed(rows: pd.DataFrame, method: str, phase: int, target: float) -> str:
    """Return the sparsity of a method that misses the target sparsity, in words."""
    of_method = rows[(rows["method"] == method) & (rows["phase"] == phase)]
    if of_method.empty:  # the best candidate, which has that of the soup
        return ""
    reached = float(of_method["sparsity"].median())
    return f" at {labels.sparsity(reached)}" if abs(reached - target) > MISSED else ""


def dense(root: Path) -> str:
    """Return the scores of dense networks, and of those trained half as many epochs again."""
    rows = pd.read_csv(root / ROWS)
    rows = rows[rows["method"] == "dense"]
    lines = []
    for (data, network), group in rows.groupby(["data", "network"], sort=False):
        by_epochs: dict[int, dict[int, float]] = {}  # epochs -> seed -> score
        for row in newest(group).to_dict("records"):
            by_epochs.setdefault(row["pretrain_epochs"], {})[row["seed"]] = row["test_score"]
        for epochs, shorter in by_epochs.items():
            longer = by_epochs.get(3 * epochs // 2)
            gain = longer and difference(longer, shorter)
            if longer and gain:
                pair = (str(epochs), _mean(shorter), str(3 * epochs // 2), _mean(longer))
                lines.append([f"{data}, {network}", *pair, points(gain), str(gain.n)])
    if not lines:
        return NOTHING
    headers = ["data, network", "epochs", "test accuracy (%)", "epochs", "test accuracy (%)"]
    return table([*headers, "longer minus shorter", "seeds"], lines)


def _experiments(root: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the title and the rows of each experiment with soups, of its newest golden numbers.

    They come by data set, network, epochs and sparsity.
    """
    order = ["data", "network", "pretrain_epochs", "retrain_epochs", "target_sparsity"]
    rows = pd.read_csv(root / ROWS).sort_values(order, kind="stable")
    for _, group in rows.groupby("experiment", sort=False):
        same_code = newest(group)
        first = same_code.iloc[0]
        epochs = f"{first['pretrain_epochs']} + {first['retrain_epochs']}"
        if SOUP in set(same_code["method"]):
            yield f"{first['data']}, {first['network']}, {epochs}", same_code


TABLES: dict[str, Callable[[Path], str]] = {
    "what_to_use": what_to_use,
    "converged_methods": methods,
    "converged_dense": dense,
}
