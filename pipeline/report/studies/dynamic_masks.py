"""Study dynamic_masks: dense, one network, one trained for the soup's epochs, and the soup."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import Line
from pipeline.report.labels import SERIES, label, short, sparsity
from pipeline.report.studies.base import (
    Study,
    groups,
    minus,
    over_places,
    over_seeds,
    points_table,
)
from pipeline.report.tables.markdown import NONE, gain, number, table

NAMES = {
    "dense": "dense",
    "single": "one network",
    "longer": "one network, the soup's epochs",
    "soup": "soup",
}
LOOKS = {"single": SERIES[2], "longer": SERIES[1], "soup": SERIES[0]}


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per network, with the epochs of all trainings that it depends on."""
    return points_table(study)


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the test score over the sparsity, a panel per method."""
    known = rows.dropna(subset=["test_score"])
    masks = [mask for mask in dict.fromkeys(known["mask"]) if mask != "dense"]
    if not masks:
        return style.empty("No network with dynamic masks was measured.")
    figure, panels = style.new(3.4, len(masks))
    places = sorted(set(known["sparsity"]) - {0.0})
    dense = over_seeds(known[known["mask"] == "dense"], "test_score")
    for axes, mask in zip(panels, masks, strict=True):
        part = known[known["mask"] == mask]
        by_role = {role: part[part["role"] == role] for role in NAMES}
        series = [
            Line(NAMES[role], look, over_places(by_role[role], "sparsity", "test_score"))
            for role, look in LOOKS.items()
        ]
        best = over_places(by_role["soup"], "sparsity", "best_candidate")
        series += [
            Line("its best candidate", SERIES[3], best),
            Line(NAMES["dense"], SERIES[4], dict.fromkeys(places, dense)),
        ]
        lines.draw(axes, series, places, [short(place) for place in places], 100)
        axes.set_title(label(mask, study.params.m))
    # Once all are drawn, as the limits are shared and then fixed.
    style.below_hundred(panels[0], "y")
    panels[0].set_ylabel(f"test {study.metric.label} (%)")
    figure.supxlabel(f"sparsity (%); {style.error_bars(study.seeds)}", fontsize=9)
    style.legend(figure, panels[0])
    return figure


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return every network, and the soup minus the other two of its method."""
    headers = [
        *("sparsity", "masks by", "", "epochs", "test (%)", "best candidate (%)"),
        "soup minus it (points)",
    ]
    return (
        f"From sparsify.sms_start on {study.params.m} copies are trained under each mask and "
        "averaged; the soup is the last average. Epochs are those of all trainings that a network "
        "depends on. "
        f"The best candidate has the highest validation {study.metric.label}. Differences are "
        "taken seed by seed.\n\n" + table(headers, _lines(study, rows), 3)
    )


def _lines(study: Study, rows: pd.DataFrame) -> Iterator[list[str]]:
    for values, at_mask in groups(rows, "sparsity", "mask"):
        roles = {role: at_mask[at_mask["role"] == role] for role in NAMES}
        for role, part in roles.items():
            if part.empty:
                continue
            differences = minus(roles["soup"], part)
            is_rival = role in {"single", "longer"}
            yield [
                sparsity(values["sparsity"]) if values["sparsity"] else NONE,
                label(values["mask"], study.params.m),
                NAMES[role],
                str(part["epochs"].iloc[0]),
                number(over_seeds(part, "test_score"), study.seeds),
                number(over_seeds(part, "best_candidate"), study.seeds),
                gain(over_seeds(differences, "points"), study.seeds) if is_rival else NONE,
            ]
