"""What averaging IMP runs loses in sparsity, their channels matched to run 0's and without."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import SERIES, Line
from pipeline.report.labels import short, sparsity
from pipeline.report.studies.base import KEY, Measured, Study, groups, over_places, over_seeds
from pipeline.report.tables.markdown import number, table

VALUES = ["dense", "sparsity"]
MEASURES = [
    "sparsity_of_mean",
    "lost_sparsity",  # of the phase, minus sparsity_of_mean
    "test_error_barrier_mean",  # on the ways between the runs
    "test_score",  # after re-pruning
    "mean_run",  # the runs' mean test score
]
RUNS = {"one": "one dense network", "own": "dense networks of their own"}
MATCHED = {"imp_reprune": "as they are", "imp_align": "matched"}


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row an average."""
    records = [_record(measured) for measured in study.points]
    return pd.DataFrame(records, columns=[*VALUES, *KEY, *MEASURES])


def _record(measured: Measured) -> dict[str, object]:
    point, model = measured.point, measured.model
    record: dict[str, object] = {
        **point.values,
        "method": point.method,
        "phase": point.phase,
        "seed": point.seed,
        "test_score": model.get("test_score"),
        "test_error_barrier_mean": measured.nodes["interpolate"].get("test_error_barrier_mean"),
    }
    if "sparsity_of_mean" in model:
        own = model["sparsity_of_mean"]
        record |= {"sparsity_of_mean": own, "lost_sparsity": point.values["sparsity"] - own}
    if all(measured.candidates):
        scores = [one["test_score"] for one in measured.candidates]
        record["mean_run"] = sum(scores) / len(scores)
    return record


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the lost sparsity, left, and the score after re-pruning, right, over the phases."""
    known = rows.dropna(subset=["sparsity_of_mean"])
    if known.empty:
        return style.empty("No average was measured.")
    figure, (left, right) = style.new(3.4, 2, share_y=False)
    places = sorted(set(known["sparsity"]))
    names = [short(place) for place in places]
    for axes, measure in ((left, "lost_sparsity"), (right, "test_score")):
        found = [
            Line(
                f"{RUNS[values['dense']]}, {MATCHED[values['method']]}",
                look,
                over_places(own, "sparsity", measure),
            )
            for (values, own), look in zip(groups(known, "dense", "method"), SERIES, strict=False)
        ]
        lines.draw(axes, found, places, names, 100)
    left.set_ylabel("sparsity lost by averaging (points)")
    right.set_ylabel(f"{study.metric.label} after re-pruning (%)")
    style.legend(figure, left)
    figure.supxlabel(f"sparsity of the runs (%); {style.error_bars(study.seeds)}", fontsize=9)
    return figure


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return the table of averages."""
    headers = [
        *("sparsity", "runs of", "channels", "sparsity of the mean (%)", "lost (points)"),
        *("test error barrier (points)", f"{study.metric.label} re-pruned (%)", "mean run (%)"),
    ]
    return (
        "After every phase the m runs of IMP are averaged and pruned again. Matched: each run's "
        "channels were first permuted to agree best with run 0's (Git Re-Basin's weight "
        "matching), which changes no function. The barrier is that of the straight ways between "
        "the runs.\n\n" + table(headers, _lines(study, rows), 3)
    )


def _lines(study: Study, rows: pd.DataFrame) -> Iterator[list[str]]:
    for values, own in groups(rows, "sparsity", "dense", "method"):
        yield [
            sparsity(values["sparsity"]),
            RUNS[values["dense"]],
            MATCHED[values["method"]],
            *(number(over_seeds(own, measure), study.seeds) for measure in MEASURES),
        ]
