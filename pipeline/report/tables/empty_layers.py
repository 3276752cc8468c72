"""The layers that have no weight left, which explain an accuracy at chance."""

from pipeline.report.labels import label
from pipeline.report.results import Results

SHOWN = 6  # layers of a network that are named
NOTE = """
**Layers without a weight.** The output of such a layer is the same for every image. A network that
has no path around it, as around a classifier, has the accuracy of chance. Less sparsity or another
`prune.allocation`, where the method takes one, keeps weights in every layer.

"""


def section(results: Results) -> str:
    """Return the empty layers of each method and phase; "" without any."""
    layers = results.tables["layers"]
    empty = layers[layers["sparsity"] == 1.0]
    lines = []
    for (method, phase), rows in empty.groupby(["method", "phase"], sort=False):
        seeds = rows["seed"].nunique()
        names = list(dict.fromkeys(rows["layer"]))
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(
            f"- {label(str(method), results.params.m)}, phase {phase}, {seeds} of "
            f"{len(results.params.seeds)} seeds: {', '.join(names[:SHOWN])}{more}\n"
        )
    return NOTE + "".join(lines) if lines else ""
