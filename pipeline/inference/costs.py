"""Measured costs of convolutions by layer shape and sparsity (costs.csv).

A layer that is not in the table has the rate of the nearest shape, times its own products:

    cost(layer, kept) = cost(nearest, kept) * MACs(layer) / MACs(nearest)

The distance of two shapes is the sum of |log2| of the ratios of kernel, stride, channels and size;
a shape with another kernel or stride is nearest only if none has the same.
"""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product
from pathlib import Path

from pipeline.errors import UserError

CSV = Path(__file__).with_name("costs.csv")
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)  # of every layer, beside "dense"
SPARSE = 0.5  # sparsities from here on determine the cost of one kept weight
MEND = "restore the file, or measure a new one (python -m pipeline.inference.measure --out)"
ISAS = ("avx512", "avx2", "scalar")  # a missing one is replaced by the first that was measured


@dataclass(frozen=True)
class Layer:
    """Shape of a convolution: kernel side, stride, channels, and size of the input.

    As text the numbers are separated by commas.
    """

    kernel: int
    stride: int
    in_channels: int
    out_channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return ",".join(map(str, _numbers(self)))

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.kernel**2 * self.in_channels * self.out_channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image, dense."""
        return self.weights * -(-self.height // self.stride) * -(-self.width // self.stride)


NUMBERS = tuple(field.name for field in fields(Layer))
Costs = dict[str, dict[Layer, dict[float | None, float]]]
COLUMNS = ("isa", *NUMBERS, "sparsity", "microseconds")


@dataclass(frozen=True)
class Table:
    """Microseconds an image by instruction set, layer and sparsity; "dense" is the dense kernel.

    Args:
        costs: {isa: {layer: {fraction of weights kept by the sparse kernel, or None: dense}}}.
    """

    costs: Costs

    def microseconds(self, layer: Layer, kept: float, isa: str = ISAS[0]) -> float:
        """Return the sparse kernel's time for a fraction ``kept`` in [0, 1] of the weights.

        Between two measured fractions it is interpolated linearly, outside of them extrapolated,
        but not below the cost of the outermost one times the ratio of the fractions.
        """
        points, scale = self._nearest(layer, isa)
        known = sorted((k, cost) for k, cost in points.items() if k is not None)
        above = next((i for i, (k, _) in enumerate(known) if k >= kept), len(known) - 1)
        (k0, c0), (k1, c1) = known[max(above, 1) - 1], known[max(above, 1)]
        cost = c0 + (c1 - c0) * (kept - k0) / (k1 - k0)
        return scale * max(cost, known[0][1] * min(kept / known[0][0], 1))

    def dense_microseconds(self, layer: Layer, isa: str = ISAS[0]) -> float:
        """Return the dense kernel's time."""
        points, scale = self._nearest(layer, isa)
        return scale * points[None]

    def nanoseconds_per_weight(self, layer: Layer, isa: str = ISAS[0]) -> float:
        """Return the time that one more kept weight costs: the least-squares slope of the cost.

        slope = cov(n, cost) / var(n) over the measured numbers n of kept weights.
        """
        points, scale = self._nearest(layer, isa)
        known = [(k, c) for k, c in points.items() if k is not None and k <= 1 - SPARSE]
        mean_k, mean_c = (math.fsum(values) / len(known) for values in zip(*known, strict=True))
        covariance = math.fsum((k - mean_k) * (c - mean_c) for k, c in known)
        slope = covariance / math.fsum((k - mean_k) ** 2 for k, _ in known)
        return 1000 * scale * slope / layer.weights

    def _nearest(self, layer: Layer, isa: str) -> tuple[dict[float | None, float], float]:
        """Return the costs of the nearest shape, and the ratio of the layers' products."""
        by_layer = self.costs.get(isa) or self._default
        best = min(by_layer, key=lambda other: (_distance(layer, other), _numbers(other)))
        return by_layer[best], layer.macs / best.macs

    @cached_property
    def _default(self) -> dict[Layer, dict[float | None, float]]:
        return next(self.costs[isa] for isa in ISAS if isa in self.costs)


def _numbers(layer: Layer) -> list[int]:
    return [getattr(layer, name) for name in NUMBERS]


def _distance(one: Layer, other: Layer) -> float:
    pairs = zip(_numbers(one), _numbers(other), strict=True)
    logs = [abs(math.log2(a / b)) for a, b in pairs]
    return math.fsum([100 * logs[0], 100 * logs[1], *logs[2:]])


def load(path: Path = CSV) -> Table:
    """Read a table of costs, with the columns of `Layer`, isa, sparsity and microseconds.

    Raises:
        UserError: the file cannot be read, or is no whole table (`table`).
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return table(csv.DictReader(file), str(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}): {MEND}.") from error


def table(rows: Iterable[dict[str, str]], source: str = CSV.name) -> Table:
    """Return the table of ``rows``, dictionaries by column; sparsity "dense": the dense kernel.

    Args:
        rows: of every layer one for "dense" and for each of SPARSITIES, and maybe for others.
        source: the file, for messages.

    Raises:
        UserError: a column is missing, a number is not allowed, there is no row, or a layer has not
            all sparsities under every instruction set.
    """
    costs: Costs = {}
    for number, row in enumerate(rows, 1):
        try:
            isa, layer, kept, cost = _point(row)
        except ValueError as error:
            raise UserError(
                f"{source}: row {number} is no measurement of a layer ({error}): {MEND}."
            ) from error
        costs.setdefault(isa, {}).setdefault(layer, {})[kept] = cost
    _check_whole(costs, source)
    return Table(costs)


def _check_whole(costs: Costs, source: str) -> None:
    needed = {None, *map(_kept, SPARSITIES)}
    layers = {layer for by_layer in costs.values() for layer in by_layer}
    for isa, layer in product(costs, sorted(layers, key=_numbers)):
        if not needed <= set(costs[isa].get(layer, {})):
            raise UserError(f"{source} has not all sparsities of {layer} for {isa}: {MEND}.")
    if not costs:
        raise UserError(f"{source} has no costs: {MEND}.")


def _point(row: dict[str, str]) -> tuple[str, Layer, float | None, float]:
    """Return instruction set, layer, fraction kept and cost of a row."""
    missing = [name for name in COLUMNS if row.get(name) is None]
    if missing:
        raise ValueError(f"without {', '.join(missing)}")
    layer = Layer(*(int(row[name]) for name in NUMBERS))
    kept = None if row["sparsity"] == "dense" else _kept(float(row["sparsity"]))
    cost = float(row["microseconds"])
    if min(_numbers(layer)) < 1 or not 0 < cost < math.inf:
        raise ValueError("its numbers must be above 0 and finite")
    if row["isa"] not in ISAS or (kept is not None and not 0 < kept <= 1):
        raise ValueError(f"isa must be one of {', '.join(ISAS)}, sparsity dense or in [0, 1)")
    return row["isa"], layer, kept, cost


def _kept(sparsity: float) -> float:
    return round(1 - sparsity, 6)
