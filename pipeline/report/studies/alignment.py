"""Study alignment: the sparsity lost by averaging IMP runs, with matched channels and without."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import Line
from pipeline.report.labels import SERIES, short, sparsity
from pipeline.report.studies.base import KEY, Measured, Study, groups, over_places, over_seeds
from pipeline.report.tables.markdown import number, table

VALUES = ["dense", "sparsity"]
MEASURES = [
    "sparsity_of_mean",
    "lost_sparsity",  # sparsity of the phase minus sparsity_of_mean
    "test_error_barrier_mean",  # between the runs
    "test_score",  # after re-pruning
    "mean_run",  # mean test score of the runs
]
RUNS = {"one": "one dense network", "own": "different dense networks"}
MATCHED = {"imp_reprune": "unchanged", "imp_align": "matched"}


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per average."""
    records = [_record(measured) for measured in study.points]
    return pd.DataFrame(records, columns=[*VALUES, *KEY, *MEASURES])


def _record(measured: Measured) -> dict[str, object]:
    record: dict[str, object] = measured.key | {
        "test_score": measured.model.get("test_score"),
        "test_error_barrier_mean": measured.nodes["interpolate"].get("test_error_barrier_mean"),
    }
    if "sparsity_of_mean" in measured.model:
        remaining = measured.model["sparsity_of_mean"]
        record["sparsity_of_mean"] = remaining
        record["lost_sparsity"] = measured.point.values["sparsity"] - remaining
    if all(measured.candidates):
        scores = [candidate["test_score"] for candidate in measured.candidates]
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
        series = [
            Line(
                f"{RUNS[values['dense']]}, {MATCHED[values['method']]}",
                look,
                over_places(part, "sparsity", measure),
            )
            for (values, part), look in zip(groups(known, "dense", "method"), SERIES, strict=False)
        ]
        lines.draw(axes, series, places, names, 100)
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
        "After every phase the m runs of IMP are averaged and pruned again. Matched: the channels "
        "of each run are first permuted to agree best with those of run 0 (weight matching of Git "
        "Re-Basin), which leaves its function unchanged. The barrier is the mean over the straight "
        "lines between two runs.\n\n" + table(headers, _lines(study, rows), 3)
    )


def _lines(study: Study, rows: pd.DataFrame) -> Iterator[list[str]]:
    for values, part in groups(rows, "sparsity", "dense", "method"):
        yield [
            sparsity(values["sparsity"]),
            RUNS[values["dense"]],
            MATCHED[values["method"]],
            *(number(over_seeds(part, measure), study.seeds) for measure in MEASURES),
        ]
