"""The table of costs: interpolation, nearest shapes, cost of a kept weight; its command."""

import csv
import re
from itertools import pairwise

import numpy as np
import pytest
from torch import nn

from pipeline.errors import UserError
from pipeline.inference import costs, measure
from pipeline.inference.costs import Layer

LAYER = Layer(kernel=3, stride=1, in_channels=16, out_channels=32, height=8, width=8)
WEIGHTS = 9 * 16 * 32


def row(layer, sparsity, microseconds, isa="avx512"):
    numbers = {name: str(getattr(layer, name)) for name in costs.NUMBERS}
    return {"isa": isa, **numbers, "sparsity": str(sparsity), "microseconds": str(microseconds)}


def rows_of(layer, cost, dense=20, isa="avx512"):
    """Rows of a layer that costs ``cost(kept)`` microseconds, and densely ``dense``."""
    known = [row(layer, s, cost(1 - s), isa) for s in costs.SPARSITIES]
    return [*known, row(layer, "dense", dense, isa)]


def line(layer, isa="avx512"):
    """Rows of a layer that costs 2 us and 3 ns a kept weight; densely 20 us."""
    return rows_of(layer, lambda kept: 2 + 0.003 * layer.weights * kept, isa=isa)


def test_cost_is_interpolated_and_extrapolated_in_kept_weights():
    table = costs.table(line(LAYER))
    for kept in (0.003, 0.03, 0.1, 0.15, 0.2, 0.5, 0.7, 1.0):
        assert table.microseconds(LAYER, kept) == pytest.approx(2 + 0.003 * WEIGHTS * kept)
    assert table.dense_microseconds(LAYER) == 20
    assert table.nanoseconds_per_weight(LAYER) == pytest.approx(3)


def test_cost_of_few_weights_is_never_negative():
    steep = costs.table(rows_of(LAYER, lambda kept: 25 * kept - 0.2))
    assert steep.microseconds(LAYER, 0.0) == 0
    assert steep.microseconds(LAYER, 0.005) == pytest.approx(0.025)


def test_slope_is_that_of_least_squares():
    kept, times = 1 - np.array(costs.SPARSITIES), np.array([9.0, 5.0, 2.0, 1.5, 1.6, 1.1])
    of = dict(zip(kept.tolist(), times.tolist(), strict=True))
    slope = np.polyfit(kept * WEIGHTS, 1000 * times, 1)[0]
    table = costs.table(rows_of(LAYER, of.__getitem__))
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
    table = costs.table([*line(LAYER), *rows_of(strided, lambda kept: 200 * kept)])
    near = Layer(3, 2, 16, 32, 8, 8)
    assert table.microseconds(near, 0.5) == pytest.approx(100 * near.macs / strided.macs)


def test_missing_instruction_set_has_the_costs_of_another():
    table = costs.table([*line(LAYER), *rows_of(LAYER, lambda _: 1, isa="avx2")])
    assert table.microseconds(LAYER, 0.5, "scalar") == table.microseconds(LAYER, 0.5, "avx512")
    assert table.microseconds(LAYER, 0.5, "avx2") == 1


def cell(number, column, value):
    """Return a change of one cell of a table's rows."""

    def change(rows):
        changed = [*rows]
        changed[number] = rows[number] | {column: value}
        return changed

    return change


def without(column):
    return lambda rows: [{k: v for k, v in row.items() if k != column} for row in rows]


@pytest.mark.parametrize(("change", "sentence"), [
    (without("isa"), "row 1 is no measurement of a layer (without isa)"),
    (without("microseconds"), "(without microseconds)"),
    (cell(2, "microseconds", None), "row 3 is no measurement of a layer (without m"),  # cut
    (cell(1, "microseconds", "nan"), "row 2 is no measurement of a layer (its numbers must be"),
    (cell(1, "microseconds", "inf"), "must be above 0 and finite"),
    (cell(1, "microseconds", "0"), "must be above 0 and finite"),
    (cell(1, "microseconds", "fast"), "could not convert string to float: 'fast'"),
    (cell(0, "kernel", "0"), "must be above 0 and finite"),
    (cell(0, "kernel", "3.5"), "row 1 is no measurement of a layer (invalid literal for int()"),
    (cell(0, "sparsity", "1"), "sparsity dense or in [0, 1)"),
    (cell(0, "isa", "mmx"), "isa must be one of avx512, avx2, scalar"),
    (lambda rows: rows[:-1], "has not all sparsities of 3,1,16,32,8,8 for avx2"),
    (lambda rows: rows[1:], "has not all sparsities of 3,1,16,32,8,8 for avx512"),
    (lambda rows: [*rows, *line(Layer(1, 1, 4, 4, 2, 2))], "of 1,1,4,4,2,2 for avx2"),
    (lambda rows: rows[:0], "has no costs"),
])  # fmt: skip
def test_damaged_table_is_refused(tmp_path, change, sentence):
    """In a sentence with the file and the mend."""
    damaged, path = change([*line(LAYER), *line(LAYER, "avx2")]), tmp_path / "costs.csv"
    columns = list(damaged[0]) if damaged else costs.COLUMNS
    lines = [",".join(each for each in row.values() if each is not None) for row in damaged]
    path.write_text("\n".join([",".join(columns), *lines]))
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        costs.load(path)
    assert str(path) in str(caught.value)
    assert "restore the file, or measure a new one (python -m pipeline" in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b'isa,kernel\n"a\x00b'])
def test_unreadable_table_is_refused(tmp_path, content):
    path = tmp_path / "costs.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"costs\.csv.*restore the file"):
        costs.load(path)


def test_committed_table_is_whole():
    """Every shape has all sparsities; fewer weights never cost much more."""
    table = costs.load()
    assert set(table.costs) >= {"avx512", "avx2"}
    for isa, layers in table.costs.items():
        for layer, points in layers.items():
            assert set(points) == {None, *(round(1 - s, 6) for s in costs.SPARSITIES)}
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
    assert len(rows) == 2 * (1 + len(costs.SPARSITIES))
    assert all(0 < float(row["microseconds"]) < 1e6 for row in rows)
    assert str(out) in capsys.readouterr().out


LAYERS = ["--layers", "3,1,2,4,5,5"]
OTHER = "name,score\na,1\n"


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--out", "/proc/nope/costs.csv", *LAYERS], "/proc/nope/costs.csv cannot be written"),
    (["--out", "OTHER", *LAYERS], "other.csv: row 1 is no measurement of a layer (without isa, "),
    (["--out", "FOLDER", *LAYERS], "cannot be read ([Errno 21]"),
    (["--out", "NEW"], "new.csv does not exist: name its layers by --layers"),
    (["--out", "NEW", "--layers", "3,1,999999999,999999999,5,5"],
     "the layer 3,1,999999999,999999999,5,5 does not fit into memory"),
    (["--out", "NEW", "--layers", "3,1,2,2,99999,99999"], "takes more than 2 GiB"),
    (["--out", "NEW", *LAYERS, "--seconds", "-1"], "'-1' must be a number of seconds >= 0"),
    (["--out", "NEW", *LAYERS, "--seconds", "nan"], "'nan' must be a number of seconds >= 0"),
    (["--out", "NEW", *LAYERS, "--seconds", "inf"], "'inf' must be a number of seconds >= 0"),
    (["--out", "NEW", *LAYERS, "--seconds", "x"], "'x' must be a number of seconds >= 0"),
])  # fmt: skip
def test_command_refuses_in_a_sentence_and_leaves_the_files(tmp_path, capsys, arguments, sentence):
    other = tmp_path / "other.csv"
    other.write_text(OTHER)
    names = {"OTHER": other, "FOLDER": tmp_path, "NEW": tmp_path / "new.csv"}
    with pytest.raises(SystemExit) as ended:
        measure.main(["--isa", "scalar", *(str(names.get(each, each)) for each in arguments)])
    assert ended.value.code == 2
    assert sentence in (shown := capsys.readouterr()).err
    assert "Traceback" not in shown.err
    assert not shown.out
    assert list(tmp_path.iterdir()) == [other]
    assert other.read_text() == OTHER


def test_command_without_a_compiler_ends_in_a_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(SystemExit):
        measure.main(["--out", str(tmp_path / "new.csv"), "--isa", "scalar", *LAYERS])
    assert capsys.readouterr().err.startswith("error: the C compiler CC=no-such-compiler was not")
    assert not list(tmp_path.iterdir())


def test_layers_of_a_network_are_named_once():
    small = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    assert measure.layers(small, (3, 9, 8)) == [Layer(3, 2, 3, 4, 9, 8), Layer(1, 1, 4, 4, 5, 4)]


@pytest.mark.parametrize("layer", ["3,1,64", "3,1,64,64,32,x", "0,1,2,3,4,5"])
def test_wrong_layer_is_refused(layer, capsys):
    with pytest.raises(SystemExit):
        measure.main(["--layers", layer])
    assert "must be KERNEL,STRIDE,IN_CHANNELS" in capsys.readouterr().err
