"""The table of costs: interpolation, nearest shapes, and the cost of one kept weight."""

import csv
from itertools import pairwise

import numpy as np
import pytest
from torch import nn

from pipeline.inference import costs, measure
from pipeline.inference.costs import Layer

LAYER = Layer(kernel=3, stride=1, in_channels=16, out_channels=32, height=8, width=8)
WEIGHTS = 9 * 16 * 32


def row(layer, sparsity, microseconds, isa="avx512"):
    numbers = {name: str(getattr(layer, name)) for name in costs.NUMBERS}
    return {"isa": isa, **numbers, "sparsity": str(sparsity), "microseconds": str(microseconds)}


def line(layer, sparsities=(0.5, 0.8, 0.9, 0.98)):
    """Rows of a layer that costs 2 us and 3 ns a kept weight; densely 20 us."""
    known = [row(layer, s, 2 + 0.003 * layer.weights * (1 - s)) for s in sparsities]
    return [*known, row(layer, "dense", 20)]


def test_cost_is_interpolated_and_extrapolated_in_kept_weights():
    table = costs.table(line(LAYER))
    for kept in (0.03, 0.1, 0.15, 0.2, 0.5, 0.7, 1.0):
        assert table.microseconds(LAYER, kept) == pytest.approx(2 + 0.003 * WEIGHTS * kept)
    assert table.dense_microseconds(LAYER) == 20
    assert table.nanoseconds_per_weight(LAYER) == pytest.approx(3)


def test_cost_of_few_weights_is_never_negative():
    steep = costs.table([row(LAYER, 0.5, 10), row(LAYER, 0.9, 1), row(LAYER, "dense", 20)])
    assert steep.microseconds(LAYER, 0.0) == 0
    assert steep.microseconds(LAYER, 0.05) == pytest.approx(0.5)


def test_slope_is_that_of_least_squares():
    kept, times = np.array([0.5, 0.2, 0.1, 0.02]), np.array([9.0, 5.0, 2.0, 1.5])
    rows = [row(LAYER, 1 - k, t) for k, t in zip(kept, times, strict=True)]
    slope = np.polyfit(kept * WEIGHTS, 1000 * times, 1)[0]
    table = costs.table([*rows, row(LAYER, "dense", 20)])
    assert table.nanoseconds_per_weight(LAYER) == pytest.approx(slope)


def test_unknown_shape_takes_the_rate_of_the_nearest():
    """A pixel of a quarter of the channels: a sixteenth of the products, at the same rate."""
    far = Layer(3, 1, 512, 512, 4, 4)
    table = costs.table([*line(LAYER), *line(far)])
    quarter = Layer(3, 1, 8, 16, 8, 8)
    assert table.microseconds(quarter, 0.1) == pytest.approx(table.microseconds(LAYER, 0.1) / 4)
    assert table.nanoseconds_per_weight(quarter) == pytest.approx(3)  # as many pixels a weight
    larger = Layer(3, 1, 16, 32, 16, 16)
    assert table.nanoseconds_per_weight(larger) == pytest.approx(12)


def test_kernel_and_stride_count_more_than_size():
    strided = Layer(3, 2, 512, 512, 64, 64)
    table = costs.table([*line(LAYER), row(strided, 0.5, 100), row(strided, 0.9, 50)])
    near = Layer(3, 2, 16, 32, 8, 8)
    assert table.microseconds(near, 0.5) == pytest.approx(100 * near.macs / strided.macs)


def test_missing_instruction_set_has_the_costs_of_another():
    table = costs.table([*line(LAYER), row(LAYER, 0.5, 1, "avx2"), row(LAYER, 0.9, 1, "avx2")])
    assert table.microseconds(LAYER, 0.5, "scalar") == table.microseconds(LAYER, 0.5, "avx512")
    assert table.microseconds(LAYER, 0.5, "avx2") == 1


def test_committed_table_is_whole():
    """Every shape has all sparsities; fewer weights never cost much more."""
    table = costs.load()
    assert set(table.costs) >= {"avx512", "avx2"}
    for isa, layers in table.costs.items():
        for layer, points in layers.items():
            assert set(points) == {None, *(round(1 - s, 6) for s in measure.SPARSITIES)}
            ordered = [points[k] for k in sorted(k for k in points if k is not None)]
            assert all(a < 1.25 * b for a, b in pairwise(ordered))
            assert table.nanoseconds_per_weight(layer, isa) > 0


def test_command_measures_each_layer_once_and_keeps_those_of_the_table(tmp_path, capsys):
    out = tmp_path / "costs.csv"
    arguments = ["--isa", "scalar", "--seconds", "0", "--out", str(out)]
    for layer in ("3,1,2,4,5,5", "1,2,2,4,6,5", "3,1,2,4,5,5"):
        measure.main([*arguments, "--layers", layer])
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (1 + len(measure.SPARSITIES))
    assert all(float(row["microseconds"]) > 0 for row in rows)
    assert str(out) in capsys.readouterr().out


def test_layers_of_a_network_are_named_once():
    small = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    assert measure.layers(small, (3, 9, 8)) == [Layer(3, 2, 3, 4, 9, 8), Layer(1, 1, 4, 4, 5, 4)]


@pytest.mark.parametrize("layer", ["3,1,64", "3,1,64,64,32,x", "0,1,2,3,4,5"])
def test_wrong_layer_is_refused(layer, capsys):
    with pytest.raises(SystemExit):
        measure.main(["--layers", layer])
    assert "must be KERNEL,STRIDE,IN_CHANNELS" in capsys.readouterr().err
