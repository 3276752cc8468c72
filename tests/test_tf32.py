"""TF32 on a GPU: off in fp32, on in tf32 and bf16, in training and in every pass that measures."""

import json
import warnings

import pytest
import torch
from torch import nn

from pipeline.models.build import build
from pipeline.stagekit.model_folder import (
    trained_meta,
    with_batchnorm_statistics,
)
from pipeline.storage.checkpoint import Checkpoint, load
from pipeline.train.device import set_precision
from pipeline.train.loop import Settings, train
from tests.fake_card import CARD, card
from tests.test_loop import dataset, small
from tests.test_stages import TRAINING, stage

CPU = torch.device("cpu")
ALLOWED = {"fp32": False, "tf32": True, "bf16": True}


@pytest.fixture(autouse=True)
def _switches_as_before():
    before = switches()
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def switches() -> tuple[bool, bool]:
    """Return whether TF32 is allowed in convolutions and in matrix products."""
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def turn(*, on: bool) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = on


@pytest.mark.parametrize("precision", ALLOWED)
def test_both_switches_are_set_as_the_precision_says_without_a_warning(precision):
    turn(on=not ALLOWED[precision])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        set_precision(CARD, precision)
        assert switches() == (ALLOWED[precision],) * 2
        matmul = "high" if ALLOWED[precision] else "highest"
        assert torch.get_float32_matmul_precision() == matmul


@pytest.mark.parametrize("precision", ALLOWED)
def test_a_cpu_leaves_the_switches_alone(precision):
    for on in (False, True):
        turn(on=on)
        set_precision(CPU, precision)
        assert switches() == (on, on)


@pytest.mark.parametrize("precision", ALLOWED)
def test_training_sets_them(precision):
    turn(on=not ALLOWED[precision])
    with card():
        settings = Settings(16, 5e-4, precision=precision)
        train(small(), dataset(), settings, [0.1], seed=0, device="cuda")
    assert switches() == (ALLOWED[precision],) * 2


@pytest.mark.parametrize("precision", ALLOWED)
def test_passes_over_a_finished_network_use_the_switches_of_its_training(precision):
    """BatchNorm's re-estimation and predictions, in the stage that trains and in any other."""
    meta = trained_meta({"network": "resnet8", "classes": 3, "channels": 1}, trained_in(precision))
    state = build("resnet8", classes=3, channels=1).state_dict()
    turn(on=not ALLOWED[precision])
    with card():
        with_batchnorm_statistics(Checkpoint(state, {}, meta), dataset(), CARD)
    assert switches() == (ALLOWED[precision],) * 2


def test_the_checkpoint_records_a_precision_that_is_not_the_default():
    meta = {"phase": 1, "precision": "bf16"}
    assert trained_meta(meta, trained_in("fp32")) == {"phase": 1}
    assert trained_meta(meta, trained_in("tf32")) == {"phase": 1, "precision": "tf32"}
    assert meta == {"phase": 1, "precision": "bf16"}, "the parent's stays as it was"
    same = trained_meta({"phase": 1}, trained_in("fp32"))
    assert same == {"phase": 1}, "today's files keep their bytes"


def trained_in(precision: str) -> Settings:
    return Settings(8, 0.0, precision=precision)


def test_tf32_on_a_cpu_gives_the_bits_of_fp32():
    states = []
    for precision in ("fp32", "tf32"):
        model = small()
        train(model, dataset(), Settings(16, 5e-4, precision=precision), [0.1] * 4, seed=0)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
def test_stages_hand_the_precision_on_to_whatever_measures(tmp_path):
    """Dense, pruned, retrained and merged networks carry it; their numbers on a CPU are fp32's."""
    data = tmp_path / "data"
    run("prepare", "--name", "digits", "--out", data)
    for precision in ("fp32", "tf32"):
        dense, pruned, copy, soup = (tmp_path / precision / name for name in "dpcs")
        flags = [*TRAINING, "--precision", precision, "--data", data]
        rate = ["--schedule", "constant", "--learning-rate", 0.01]
        run("pretrain", "--network", "resnet8", *rate, *flags, "--out", dense)
        run("prune", "--parent", dense, "--phase", 1, "--sparsity", 0.5, "--out", pruned)
        parents = ["--parent", pruned, "--dense", dense, "--schedule", "LLR"]
        run("retrain", *parents, *flags, "--out", copy)
        run("merge", "--data", data, "--candidates", copy, "--rule", "uniform", "--out", soup)
        for folder in (dense, pruned, copy, soup):
            recorded = load(folder / "model.safetensors").meta.get("precision", "fp32")
            assert recorded == precision, folder
    metrics = [json.loads((tmp_path / p / "s/metrics.json").read_text()) for p in ("fp32", "tf32")]
    assert metrics[0] == metrics[1]


def run(name: str, *flags: object) -> None:
    result = stage(name, *flags)
    assert result.returncode == 0, result.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ALLOWED)
@pytest.mark.parametrize("layer", [nn.Conv2d(64, 64, 3, padding=1), nn.Linear(512, 512)])
def test_fp32_on_a_gpu_is_float32(precision, layer):
    """Against float64, the relative error (L2) is that of 23 bits of mantissa, or of 10."""
    if ALLOWED[precision] and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("TF32 needs an Ampere GPU")
    torch.manual_seed(0)
    shape = (8, 64, 16, 16) if isinstance(layer, nn.Conv2d) else (256, 512)
    inputs = torch.randn(shape)
    exact = layer.double()(inputs.double()).detach()
    set_precision(CARD, precision)
    result = layer.float().cuda()(inputs.cuda()).detach().cpu().double()
    layer.cpu()
    error = (result - exact).norm() / exact.norm()
    assert 5e-5 < error < 2e-3 if ALLOWED[precision] else error < 1e-5
