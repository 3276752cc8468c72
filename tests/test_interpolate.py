"""The straight way between two networks, its barriers, and what the stage makes of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.averaging import weighted_sum
from pipeline.errors import UserError
from pipeline.soup._interpolate import barrier, grid
from pipeline.storage.checkpoint import read_json
from tests.command_line import stage
from tests.test_stages import data as prepared
from tests.test_stages import pretrain, refused

data = prepared  # pytest finds a fixture by its name in this module


def test_a_valley_has_no_barrier_and_a_hill_has_its_height():
    shares = grid(5)
    assert shares == [0, 0.25, 0.5, 0.75, 1]
    assert barrier(shares, [(a - 0.5) ** 2 for a in shares]) == 0
    # w from -1 to 3, loss (w^2 - 1)^2 at w = -1, 0, 1, 2, 3; the line: 0, 16, 32, 48, 64.
    assert barrier(shares, [0.0, 1.0, 0.0, 9.0, 64.0]) == 0
    # Two minima at +-1 and a hill of height 1 between: w = -1, -1/2, 0, 1/2, 1.
    way = [(w * w - 1) ** 2 for w in (-1, -0.5, 0, 0.5, 1)]
    assert barrier(shares, way) == 1
    # Above the line from 1 to 3, whose middle is 2.
    assert barrier([0, 0.5, 1], [1.0, 2.5, 3.0]) == 0.5


@given(curvature=st.floats(-5, 5), slope=st.floats(-5, 5), offset=st.floats(-5, 5))
def test_a_parabola_has_the_barrier_of_its_curvature(curvature, slope, offset):
    """L(a) = c a (1 - a) + s a + o is c a (1 - a) above its chord: c / 4 in the middle, or 0."""
    shares = grid(11)
    values = [curvature * a * (1 - a) + slope * a + offset for a in shares]
    assert barrier(shares, values) == pytest.approx(max(curvature / 4, 0), abs=1e-9)


def test_between_is_the_weighted_mean_and_keeps_zeros_and_counters():
    one = {"w": torch.tensor([1.0, 0.0, 2.0]), "count": torch.tensor(7)}
    two = {"w": torch.tensor([3.0, 0.0, -2.0]), "count": torch.tensor(9)}
    middle = weighted_sum([one, two], [0.75, 0.25])
    assert middle["w"].tolist() == [1.5, 0.0, 1.0]
    assert middle["w"].dtype == torch.float32
    assert middle["count"] == 7
    assert torch.equal(weighted_sum([one, two], [1.0, 0.0])["w"], one["w"])
    assert torch.equal(weighted_sum([one, two], [0.0, 1.0])["w"], two["w"])


@pytest.mark.parametrize("points", [0, 2])
def test_a_grid_needs_a_point_between(points):
    with pytest.raises(UserError, match="points"):
        grid(points)


@pytest.mark.slow
def test_the_stage_walks_every_pair(data, tmp_path):
    folders = [tmp_path / f"dense{seed}" for seed in range(2)]
    for folder, rate in zip(folders, (0.1, 0.05), strict=True):
        assert pretrain(data, folder, rate).returncode == 0
    flags = ["--data", data, "--points", 3, "--train-images", 100, "--models"]
    run = stage("interpolate", *flags, *folders, folders[0], "--out", tmp_path / "way")
    assert run.returncode == 0, run.stderr
    metrics = read_json(tmp_path / "way" / "metrics.json")
    assert metrics["shares"] == [0, 0.5, 1]
    assert [pair["models"] for pair in metrics["pairs"]] == [[0, 1], [0, 2], [1, 2]]
    different, same, back = metrics["pairs"]
    assert same["test_loss_barrier"] == pytest.approx(0, abs=1e-6), "from a network to itself"
    curves = different["curves"]
    for name, curve in curves.items():
        assert curve == pytest.approx(back["curves"][name][::-1], abs=1e-5), "the way back"
    own = [read_json(folder / "metrics.json") for folder in folders]
    ends = [curves["test_loss"][0], curves["test_loss"][-1]]
    assert ends == pytest.approx([one["test_loss"] for one in own], abs=1e-5)
    assert curves["val_error"][0] == pytest.approx(1 - own[0]["val_accuracy"])
    all_barriers = [pair["val_loss_barrier"] for pair in metrics["pairs"]]
    assert metrics["val_loss_barrier_max"] == max(all_barriers)
    assert metrics["val_loss_barrier_mean"] == pytest.approx(sum(all_barriers) / 3)

    alone = stage("interpolate", *flags, folders[0], "--out", tmp_path / "none")
    assert refused(alone, "at least two networks")
