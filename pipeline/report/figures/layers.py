"""Figure: sparsity of each layer in the last phase."""

import re

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.figures import style
from pipeline.report.results import Results
from pipeline.report.statistics import spread

_FIRST = ("stem", "conv1", "conv_stem", "patch")
_LAST = ("fc", "linear", "classifier", "head")


def draw(results: Results) -> Figure:
    """Draw a line per method over the layers, from input to output."""
    table = results.at_end("layers")
    table = table[table["method"] != "dense"]
    if table.empty:
        return style.empty("No sparsity of layers: no model of the last phase was evaluated.")
    layers = sorted(set(table["layer"]), key=depth)
    names = [layer.removesuffix(".weight") for layer in layers]
    figure, (axes,) = style.new(3.1 + 0.065 * max(map(len, names)))
    size = 4.8 if len(layers) < 40 else 3.0
    for method in results.methods:
        rows = table[table["method"] == method]
        if rows.empty:
            continue
        look, name = style.method_look(results, method)
        spreads = [
            spread(rows.loc[rows["layer"] == layer, "sparsity"].tolist()) for layer in layers
        ]
        means, stds = style.percents([s for s in spreads if s is not None])
        axes.errorbar(
            [i for i, s in enumerate(spreads) if s is not None],
            means,
            yerr=stds if any(stds) else None,
            **style.marks(look, size),
            linewidth=1.0,
            markeredgewidth=0.4,
            elinewidth=0.8,
            capsize=1.5,
            label=name,
        )
    overall = 100 * results.phases[results.final]
    axes.axhline(overall, color=style.GREY, linestyle=":", label=f"whole network: {overall:.4g} %")
    _layer_axis(axes, names)
    axes.set_ylabel("sparsity (%)")
    axes.set_xlabel(f"layer, input to output; {style.seeds_note(results)}")
    axes.grid(axis="y")
    style.below_hundred(axes, "y")
    style.legend(figure, axes)
    return figure


def _layer_axis(axes: Axes, names: list[str]) -> None:
    """Write the names of the layers, of many only every n-th and the last."""
    step = 1 + len(names) // 45
    last = len(names) - 1
    shown = [*range(0, last - step + 1, step), last]
    axes.set_xticks(shown, [names[i] for i in shown], rotation=90, fontsize=7.5)


def depth(layer: str) -> tuple[int, list[tuple[int, int, str]]]:
    """Return a key that sorts parameter names from input to output: stem, numbered parts, head."""
    section = 0 if layer.startswith(_FIRST) else 2 if layer.startswith(_LAST) else 1
    parts = re.findall(r"\d+|\D+", layer)
    return section, [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts]
