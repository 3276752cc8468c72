"""Study latency: score against measured time, by allocation and sparsity."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from pipeline.report.figures import style
from pipeline.report.labels import SERIES, Look, short, sparsity
from pipeline.report.metric import Metric
from pipeline.report.statistics import Spread
from pipeline.report.studies.base import Study, groups, over_seeds, points_table
from pipeline.report.tables.markdown import NONE, number, table

BATCHES = (1, 64)
DENSE = SERIES[4]  # black


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per network, with milliseconds an image of both passes by batch size."""
    rows = points_table(study)
    measured = [each.nodes.get("latency", {}) for each in study.points]
    for size in BATCHES:
        times = [values.get("latency", {}).get(f"batch_{size}", {}) for values in measured]
        for key in ("dense_ms", "compiled_ms"):
            rows[f"{key}_{size}"] = [_an_image(each.get(key), size) for each in times]
        rows[f"speedup_{size}"] = [each.get("speedup") for each in times]
    for key in ("isa", "cpu"):
        rows[key] = [values.get(key) for values in measured]
    return rows


def _an_image(milliseconds: float | None, size: int) -> float | None:
    return None if milliseconds is None else milliseconds / size


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the score over the time of an image, a line per allocation through the sparsities."""
    known = rows.dropna(subset=["test_score", "compiled_ms_64"])
    if known.empty:
        return style.empty("No network was measured.")
    figure, (axes,) = style.new(3.9)
    dense = known[known["phase"] == 0]
    for key, name, look in (
        ("dense_ms_64", "dense, PyTorch", DENSE),
        ("compiled_ms_64", "dense, compiled", SERIES[3]),
    ):
        if len(dense):
            _line(axes, [dense], key, name, look)
    pruned = known[known["phase"] > 0]
    for (values, part), look in zip(groups(pruned, "allocation"), SERIES[:3] * 9, strict=False):
        places = [each for _, each in groups(part, "sparsity")]
        _line(axes, places, "compiled_ms_64", values["allocation"].replace("_", " "), look)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(axis="both")
    axes.set_xlabel(f"milliseconds an image, batches of 64; {style.error_bars(study.seeds)}")
    axes.set_ylabel(f"test {study.metric.label} (%)")
    style.below_hundred(axes, "y")
    style.legend(figure, axes)
    return figure


def _line(axes: Axes, places: list[pd.DataFrame], key: str, name: str, look: Look) -> None:
    """Draw one point per table of ``places``, with its sparsity, if it has one."""
    scores = [over_seeds(part, "test_score") for part in places]
    times = [over_seeds(part, key) for part in places]
    shown = [(x, y) for x, y in zip(times, scores, strict=True) if x is not None and y is not None]
    axes.errorbar(
        [x.mean for x, _ in shown],
        [100 * y.mean for _, y in shown],
        xerr=_bars([x for x, _ in shown], 1),
        yerr=_bars([y for _, y in shown], 100),
        **style.marks(look) | ({"linestyle": "none"} if len(places) == 1 else {}),
        elinewidth=1.0,
        label=name,
        zorder=3,
    )
    for part, x, y in zip(places, times, scores, strict=True):
        if part["phase"].iloc[0] and x is not None and y is not None:
            axes.annotate(
                short(part["sparsity"].iloc[0]),
                (x.mean, 100 * y.mean),
                xytext=(5, -3),
                textcoords="offset points",
                va="top",
                color=look.colour,
                fontsize=7.5,
            )


def _bars(spreads: list[Spread], scale: float) -> list[float] | None:
    """Return the standard deviations, or None if there are none."""
    stds = [scale * (each.std or 0.0) for each in spreads]
    return stds if any(stds) else None


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return scores, times and speed-ups of all networks."""
    return (
        "Every soup was made in one shot. Networks were compiled for inference "
        "(pipeline/inference) and measured on one thread: the median time of a pass, in "
        "milliseconds an image, which alternates with a pass of the same network in PyTorch, "
        "zeros included. The speed-up is the ratio of the two. Times differ from run to run, and "
        f"with the machine's load; the speed-up depends less on it.{_machine(rows)}\n\n"
        + networks(rows, study.seeds, study.metric.label)
    )


def networks(rows: pd.DataFrame, seeds: int, label: str = Metric().label) -> str:
    """Return the table of scores, times and speed-ups; ``label`` names the score."""
    headers = [
        *("allocation", "sparsity", f"test {label} (%)", "best candidate (%)"),
        *("ms an image, 64 at once", "speed-up (x)", "ms, 1 image", "speed-up (x)"),
    ]
    return table(headers, _lines(rows, seeds), 2)


def _machine(rows: pd.DataFrame) -> str:
    """Return sentences about the processors and the instruction sets of the measurements."""
    known = rows.dropna(subset=["cpu"])
    if known.empty:
        return ""
    cpus = ", ".join(sorted(set(known["cpu"])))
    isas = ", ".join(sorted(set(known["isa"])))
    return f" Processor: {cpus}. Instruction set: {isas}."


def _lines(rows: pd.DataFrame, seeds: int) -> Iterator[list[str]]:
    dense = rows[rows["phase"] == 0]
    yield ["dense, PyTorch", NONE, *_scores(seeds, dense), *_times(seeds, dense, "dense_ms")]
    yield ["dense, compiled", NONE, *_scores(seeds, dense), *_times(seeds, dense)]
    for values, part in groups(rows[rows["phase"] > 0], "allocation", "sparsity"):
        yield [
            values["allocation"],
            sparsity(values["sparsity"]),
            *_scores(seeds, part),
            *_times(seeds, part),
        ]


def _scores(seeds: int, rows: pd.DataFrame) -> list[str]:
    return [number(over_seeds(rows, key), seeds) for key in ("test_score", "best_candidate")]


def _times(seeds: int, rows: pd.DataFrame, key: str = "compiled_ms") -> list[str]:
    cells = []
    for size in reversed(BATCHES):
        cells.append(number(over_seeds(rows, f"{key}_{size}"), seeds, scale=1, digits=3))
        compiled = key == "compiled_ms"
        speedup = over_seeds(rows, f"speedup_{size}") if compiled else None
        cells.append(number(speedup, seeds, scale=1))
    return cells
