"""Networks: the published counts, the described wiring, and weights that are checked key by key."""

import math
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from pipeline.errors import UserError
from pipeline.models._residual import BasicBlock, ResidualNetwork
from pipeline.models._weights import load_weights
from pipeline.models.build import build
from pipeline.models.wrn20 import WideBlock
from pipeline.registry import names

OURS = ("resnet18", "resnet20", "resnet8", "wrn20")
OF_PIXELS = ("pspnet", "pspnet_small")  # tests/test_segmentation.py


def layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def counts(model: nn.Module) -> tuple[int, int, int]:
    """Return (parameters, convolution and linear weights, tensors of those)."""
    weights = [layer.weight.numel() for layer in layers(model)]
    return sum(p.numel() for p in model.parameters()), sum(weights), len(weights)


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("resnet18", 10, (11_173_962, 11_164_352, 21)),
        ("wrn20", 100, (26_863_460, 26_842_032, 23)),
        pytest.param(
            "torchvision.resnet50", 1000, (25_557_032, 25_502_912, 54), marks=pytest.mark.slow
        ),
    ],
)
def test_counts_are_the_papers(name, classes, expected):
    assert counts(build(name, classes)) == expected


@pytest.mark.slow
def test_maxvit_has_the_papers_count():
    assert counts(build("torchvision.maxvit_t", 1000))[0] == 30_919_624


@pytest.mark.parametrize(("name", "blocks"), [("resnet8", 1), ("resnet20", 3)])
def test_small_networks_count_as_their_layers_do(name, blocks):
    """He et al., Section 4.2: 9k^2 per 3x3 layer, here with 1x1 shortcuts and BatchNorm."""

    def stage(inputs, width):
        shortcut = inputs * width + 2 * width if inputs != width else 0
        convolutions = 9 * inputs * width + 9 * width * width * (2 * blocks - 1)
        return convolutions + 2 * blocks * 2 * width + shortcut

    stem = 27 * 16 + 2 * 16
    total = stem + stage(16, 16) + stage(16, 32) + stage(32, 64) + 64 * 10 + 10
    assert counts(build(name, 10))[0] == total


def test_there_are_these_networks():
    assert names("models") == sorted([*OURS, *OF_PIXELS, "t5small", "t5tiny"])


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32)])
def test_images_of_either_size_become_logits(name, channels, size):
    model = build(name, 7, channels).eval()
    with torch.no_grad():
        assert model(torch.rand(2, channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize("name", OURS)
def test_three_stages_halve_the_image_twice_and_four_thrice(name):
    """A stride in the wrong place keeps every count and shape of the weights."""
    sizes = []
    model = build(name, 10).eval()
    for layer in layers(model):
        layer.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[2:])))
    with torch.no_grad():
        model(torch.rand(1, 3, 32, 32))
    halvings = 3 if name == "resnet18" else 2
    assert sizes[0] == (32, 32)
    assert set(sizes) == {(32 >> k, 32 >> k) for k in range(halvings + 1)} | {()}


@pytest.mark.parametrize("name", OURS)
def test_the_same_seed_gives_the_same_network(name):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(build(name, 10).state_dict())
    first, second, other = states
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


@pytest.mark.parametrize("name", OURS)
def test_convolutions_start_with_the_variance_of_he(name):
    torch.manual_seed(0)
    for layer in layers(build(name, 10)):
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 2000:
            fan_out = layer.out_channels * math.prod(layer.kernel_size)
            assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)
            assert layer.bias is None or not layer.bias.any()


def randomise(block: nn.Module) -> None:
    """Give BatchNorm statistics and scales that are not the identity."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


def normalised(x, state, name):
    statistics = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return functional.batch_norm(x, *statistics, state[f"{name}.weight"], state[f"{name}.bias"])


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 8, 2), (4, 8, 1)])
def test_a_basic_block_normalises_after_each_convolution(inputs, outputs, stride):
    torch.manual_seed(0)
    block = BasicBlock(inputs, outputs, stride).eval()
    randomise(block)
    state, x = block.state_dict(), torch.randn(2, inputs, 6, 6)
    hidden = functional.conv2d(x, state["conv1.weight"], stride=stride, padding=1)
    hidden = normalised(hidden, state, "bn1").clamp(min=0)
    hidden = normalised(functional.conv2d(hidden, state["conv2.weight"], padding=1), state, "bn2")
    shortcut = x
    if stride != 1 or inputs != outputs:
        shortcut = functional.conv2d(x, state["shortcut.0.weight"], stride=stride)
        shortcut = normalised(shortcut, state, "shortcut.1")
    torch.testing.assert_close(block(x), (hidden + shortcut).clamp(min=0))


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 8, 2), (4, 8, 1)])
def test_a_wide_block_normalises_before_and_strides_late(inputs, outputs, stride):
    torch.manual_seed(0)
    block = WideBlock(inputs, outputs, stride).eval()
    randomise(block)
    state, x = block.state_dict(), torch.randn(2, inputs, 6, 6)
    hidden = normalised(x, state, "bn1").clamp(min=0)
    hidden = functional.conv2d(hidden, state["conv1.weight"], state["conv1.bias"], padding=1)
    hidden = normalised(hidden, state, "bn2").clamp(min=0)
    hidden = functional.conv2d(hidden, state["conv2.weight"], state["conv2.bias"], stride, 1)
    shortcut = x
    if stride != 1 or inputs != outputs:
        weight, bias = state["shortcut.0.weight"], state["shortcut.0.bias"]
        shortcut = functional.conv2d(x, weight, bias, stride)
    torch.testing.assert_close(block(x), hidden + shortcut)


def test_a_wide_block_drops_three_tenths_between_its_convolutions():
    block = WideBlock(8, 8, 1)
    seen = []
    block.bn2.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    torch.manual_seed(0)
    block(torch.randn(16, 8, 16, 16))
    assert (seen[0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.integers(1, 2),
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_any_residual_network_is_as_deep_as_it_says(widths, blocks, classes, channels):
    model = ResidualNetwork(widths, blocks, classes, channels).eval()
    shortcuts = [layer for layer in layers(model) if getattr(layer, "kernel_size", 0) == (1, 1)]
    assert len(layers(model)) - len(shortcuts) == 2 * blocks * len(widths) + 2
    assert model(torch.rand(1, channels, 8, 8)).shape == (1, classes)


def test_torchvisions_networks_are_built_by_name():
    model = build("torchvision.squeezenet1_1", 5).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 3, 64, 64)).shape == (2, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_outputs_return_logits_alone(name):
    assert build(f"torchvision.{name}", 5)(torch.rand(2, 3, 96, 96)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet19", "resnet18"),
        ("wrn_20", "wrn20"),
        ("build", ""),
        ("parts.residual", "resnet8"),
        ("torchvision.resnet_50", "torchvision.resnet50"),
        ("torchvision.", "torchvision."),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(name, near):
    with pytest.raises(UserError, match=r"does not exist: choose one of ") as error:
        build(name, 10)
    suggestions = str(error.value).partition("choose one of ")[2].split(", ")
    assert any(suggestion.startswith(near) for suggestion in suggestions)


def test_torchvisions_networks_take_colour_images_only():
    with pytest.raises(UserError, match="takes colour images, but these have 1 channels"):
        build("torchvision.resnet18", 10, 1)


def write(path: Path, state: dict[str, torch.Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def changed(state, **shapes):
    """Return ``state`` with tensors of other shapes, or without those given as None."""
    shapes = {key.replace("__", "."): shape for key, shape in shapes.items()}
    kept = {key: tensor for key, tensor in state.items() if key not in shapes}
    return kept | {k: torch.zeros(s) for k, s in shapes.items() if s is not None}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_come_back_from_every_kind_of_file(tmp_path, suffix):
    state = build("resnet8", 10).state_dict()
    model = build("resnet8", 10)
    assert load_weights(model, write(tmp_path / f"w{suffix}", state)) == []
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["resnet8", "torchvision.squeezenet1_1"])
def test_a_classifier_of_other_classes_stays_and_is_reported(tmp_path, capsys, name):
    pretrained, model = build(name, 10), build(name, 3)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    left = load_weights(model, write(tmp_path / "w.pt", pretrained.state_dict()))
    classifier = "fc" if name == "resnet8" else "classifier.1"
    assert left == [f"{classifier}.weight", f"{classifier}.bias"]
    assert f"{classifier}.weight" in capsys.readouterr().out
    for key, tensor in model.state_dict().items():
        source = before if key in left else pretrained.state_dict()
        assert torch.equal(tensor, source[key])


def test_half_precision_weights_become_those_of_the_network(tmp_path):
    state = build("resnet8", 10).half().state_dict()
    model = build("resnet8", 10)
    load_weights(model, write(tmp_path / "w.pt", state))
    assert model.conv1.weight.dtype == torch.float32
    assert torch.equal(model.conv1.weight, state["conv1.weight"].float())


def test_weights_without_batch_counters_are_taken(tmp_path):
    state = build("resnet8", 10).state_dict()
    old = {key: tensor for key, tensor in state.items() if "num_batches" not in key}
    assert load_weights(build("resnet8", 10), write(tmp_path / "w.pt", old)) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"conv1__weight": None}, r"it has no conv1\.weight"),
        ({"fc__weight": None}, r"it has no fc\.weight"),
        ({"extra__weight": (1,)}, r"it has extra\.weight, which the network does not have"),
        ({"conv1__weight": (16, 1, 3, 3)}, r"its conv1\.weight has shape \[16, 1, 3, 3\]"),
        ({"conv1__weight": (8, 3, 3, 3)}, r"its conv1\.weight has shape"),
        ({"fc__weight": (5, 32), "fc__bias": (5,)}, r"its fc\.weight has shape \[5, 32\]"),
        ({"fc__bias": ()}, r"its fc\.bias has shape \[\]"),
    ],
)
def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path, change, why):
    model = build("resnet8", 10)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    path = write(tmp_path / "w.safetensors", changed(before, **change))
    with pytest.raises(UserError, match=why):
        load_weights(model, path)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


class Attack:
    """A pickle of this makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


def test_code_in_a_weights_file_is_not_run(tmp_path):
    torch.save({"conv1.weight": Attack(tmp_path / "proof")}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"w\.pt, which is damaged or holds more than tensors"):
        load_weights(build("resnet8", 10), tmp_path / "w.pt")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("w.pt", b"", "damaged"),
        ("w.pt", b"PK\x03\x04 and no zip file", "damaged"),
        ("w.pth", pickle.dumps([1, 2], protocol=2), "damaged|not a state dict"),
        ("text.pt", b"this is text\n", "damaged"),
        ("page.pth", b"<!DOCTYPE html>\n<html></html>\n", "damaged"),
        ("w.safetensors", b"nothing", "truncated"),
        ("w.bin", b"", "must be a .safetensors, .pt or .pth file"),
        ("absent.pt", None, "which does not exist"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, name, content, why):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=why) as refusal:
        load_weights(build("resnet8", 10), tmp_path / name)
    assert str(refusal.value).startswith(f"network.weights is {tmp_path / name}, ")
    assert "dvc repro" not in str(refusal.value), "no stage makes this file"


@pytest.mark.parametrize("value", [[torch.zeros(1)], {"epoch": 3}, torch.zeros(2)])
def test_a_file_without_a_state_dict_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "w.pt")
    with pytest.raises(UserError, match="is not a state dict"):
        load_weights(build("resnet8", 10), tmp_path / "w.pt")
