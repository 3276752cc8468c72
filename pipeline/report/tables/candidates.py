"""The table of soups: each compared with its candidates and their ensemble."""

from pipeline.report.labels import label, sparsity
from pipeline.report.results import ROLES, Results
from pipeline.report.statistics import over_seeds
from pipeline.report.tables.markdown import NONE, number, table


def section(results: Results) -> str:
    """Return score, best and mean candidate, ensemble and distances of every average."""
    n, m = len(results.params.seeds), results.params.m
    rows = []
    for method, phase, planned in results.planned:
        measures = ["test_score", *(f"{role}_test_score" for role in ROLES)]
        scores = [over_seeds(results, method, phase, measure) for measure in measures]
        if any(scores[1:]):
            included = over_seeds(results, method, phase, "included")
            rows.append(
                [
                    label(method, m),
                    f"{phase} ({sparsity(planned)})",
                    *(number(score, n) for score in scores),
                    NONE if included is None else f"{included.mean:.3g} of {m}",
                    number(over_seeds(results, method, phase, "l2_mean"), n, scale=1),
                    number(over_seeds(results, method, phase, "angle_mean_degrees"), n, scale=1),
                ]
            )
    if not rows:
        return "No soup was compared with its candidates.\n"
    headers = [
        *("", "phase", "average", "best candidate", "mean candidate", "ensemble"),
        *("candidates included", "L2 distance", "angle (degrees)"),
    ]
    return (
        f"Test {results.metric.label} in percent. The ensemble averages the predictions of the "
        "candidates and costs m networks. Distance and angle are means over the pairs of "
        "candidates.\n\n" + table(headers, rows, names=2)
    )
