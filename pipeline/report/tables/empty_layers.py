"""The layers that have no weight left, which explain an accuracy at chance."""

from pipeline.report.labels import label
from pipeline.report.results import Results

SHOWN = 6  # layers of a method that are named
NOTE = """
**Layers without a weight.** The output of such a layer is the same for every image. Where no other
path leads around the layer, as none leads around a classifier, the network has the accuracy of
chance. Less sparsity, or another `prune.allocation` where the method takes one, may leave weights
in every layer.

"""


def section(results: Results) -> str:
    """Return the empty layers of each method and phase; "" without any."""
    layers = results.tables["layers"]
    empty = layers[layers["sparsity"] == 1.0]
    n, lines = len(results.params.seeds), []
    for (method, phase), rows in empty.groupby(["method", "phase"], sort=False):
        seeds = rows.groupby("layer", sort=False)["seed"].nunique()
        names = [f"{layer} ({count} of {n} seeds)" for layer, count in seeds.items()]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        name = label(str(method), results.params.m)
        lines.append(f"- {name}, phase {phase}: {', '.join(names[:SHOWN])}{more}\n")
    return NOTE + "".join(lines) if lines else ""
