"""Quantised weights: the nearest of 2^b - 1 levels a channel, exact zeros, and soups of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.errors import UserError
from pipeline.prune.quantise import quantise, quantise_checkpoint, rounding
from pipeline.storage.checkpoint import Checkpoint, load
from tests.command_line import stage
from tests.test_stages import data as prepared
from tests.test_stages import pretrain, refused

data = prepared  # pytest finds a fixture by its name in this module


def weights(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_channel_by_hand():
    """int4 has 7 levels a side: scale 0.7 / 7 = 0.1; 0.34 and -0.26 become 0.3 and -0.3."""
    weight = torch.tensor([[0.7, 0.34, -0.26, 0.04, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    expected = torch.tensor([[0.7, 0.3, -0.3, 0.0, 0.0], [0.0] * 5])
    assert torch.allclose(quantise(weight, 4), expected, atol=1e-7)
    assert torch.equal(quantise(weight, 4)[1], expected[1]), "a channel of zeros has no scale"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_weight_is_refused(value):
    with pytest.raises(UserError, match="NaN or infinity"):
        quantise(torch.tensor([[1.0, value]]), 8)


@given(seed=st.integers(0, 2**20), bits=st.integers(2, 16))
def test_it_is_pytorchs_fake_quantisation_per_channel(seed, bits):
    weight = weights(seed, 6, 3, 2, 2)
    levels = 2 ** (bits - 1) - 1
    scale = weight.abs().amax((1, 2, 3)) / levels
    zero = torch.zeros(6, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -levels, levels)
    steps = (quantise(weight, bits) - theirs).abs() / scale.view(-1, 1, 1, 1)
    # Their scale is rounded to float32, so a weight between two levels may fall to the other one.
    assert (steps < 1e-2).double().mean() > 0.98
    assert steps.max() < 1.01


@given(seed=st.integers(0, 2**20), bits=st.integers(2, 8))
def test_laws_of_the_levels(seed, bits):
    """At most half a step away, at most 2^b - 1 values, zeros kept, and nothing left to round."""
    weight = weights(seed, 5, 40) * (weights(seed + 1, 5, 40) > 0.5)
    rounded = quantise(weight, bits)
    step = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert ((rounded - weight).abs() <= step / 2 * (1 + 1e-6)).all()
    assert all(len(channel.unique()) <= 2**bits - 1 for channel in rounded)
    assert (rounded[weight == 0] == 0).all()
    assert torch.equal(rounded.abs().amax(1), weight.abs().amax(1))
    assert torch.equal(quantise(rounded, bits), rounded)
    assert torch.equal(quantise(-weight, bits), -rounded)


def test_only_the_named_tensors_of_a_checkpoint_change():
    state = {"w": weights(0, 4, 9), "bias": weights(1, 4), "count": torch.tensor(7)}
    checkpoint = Checkpoint(state, {"w": state["w"] != 0}, {"sparsity": 0.0})
    new = quantise_checkpoint(checkpoint, ["w"], 4)
    assert torch.equal(new.state["w"], quantise(state["w"], 4))
    assert all(torch.equal(new.state[name], state[name]) for name in ("bias", "count"))
    assert list(new.state) == list(state)
    lost = rounding(state, new.state, ["w"])
    error = (state["w"] - new.state["w"]).norm() / state["w"].norm()
    assert lost["relative_error"] == pytest.approx(float(error), rel=1e-5)
    assert lost["rounded_to_zero"] == float((new.state["w"] == 0).double().mean()) > 0
    assert rounding(state, state, ["w"]) == {"relative_error": 0.0, "rounded_to_zero": 0.0}


@pytest.mark.parametrize("bits", [1, 17])
def test_other_bits_are_refused(bits):
    with pytest.raises(UserError, match=rf"bits is {bits}, but must be in \[2, 16\]"):
        quantise(torch.ones(2, 2), bits)


def test_the_stage_writes_a_network_that_can_be_merged(data, tmp_path):
    """The mean of quantised candidates is no quantised network; quantised again it is one."""
    folders = [tmp_path / f"c{seed}" for seed in range(2)]
    for folder, rate in zip(folders, (0.1, 0.05), strict=True):
        assert pretrain(data, folder, rate).returncode == 0
    common = ["--data", data, "--device", "cpu"]
    for folder in folders:
        out = folder.with_name(f"{folder.name}-int4")
        run = stage("quantise", *common, "--model", folder, "--bits", 4, "--out", out)
        assert run.returncode == 0, run.stderr
    four = [folder.with_name(f"{folder.name}-int4") for folder in folders]
    flags = ["--rule", "uniform", "--out", tmp_path / "mean"]
    assert stage("merge", *common, "--candidates", *four, *flags).returncode == 0
    again = ["--model", tmp_path / "mean", "--bits", 4, "--out", tmp_path / "both"]
    assert stage("quantise", *common, *again).returncode == 0
    one, mean, both = (load(f / "model.safetensors").state for f in (four[0], *(
        tmp_path / name for name in ("mean", "both"))))  # fmt: skip
    names = [name for name in one if one[name].ndim > 1]
    assert names
    for name in names:
        assert torch.equal(quantise(one[name], 4), one[name])
        assert torch.equal(quantise(mean[name], 4), both[name])
    assert any(not torch.equal(mean[name], both[name]) for name in names)
    flags = ["--model", folders[0], "--bits", 1, "--out", tmp_path / "x"]
    refusal = stage("quantise", *common, *flags)
    assert refused(refusal, "bits is 1")
