"""REPAIR: activations measured and corrected by its equations, and once more by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline import code_files
from pipeline.models.build import build
from pipeline.soup import repair
from pipeline.soup.uniform import average
from pipeline.stagekit.merge_inputs import MergeInputs
from pipeline.stagekit.model_folder import write
from pipeline.storage.checkpoint import Checkpoint
from pipeline.train.activations import channel_moments, correctable
from tests.test_loop import CPU, dataset, small

DATA = dataset(count=96)
IMAGES, MEAN, STD = DATA.train.images, DATA.mean, DATA.std
LAYERS = ["0", "2", "5"]


def plain(seed: int) -> nn.Module:
    """Return a network without BatchNorm: two convolutions, a hidden layer, a classifier."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(32, 10), nn.Tanh(), nn.Linear(10, 3)),
    )
    for parameter in model.parameters():
        parameter.data *= 2
    return model


MASKS = {
    name: torch.rand(parameter.shape, generator=torch.Generator().manual_seed(5)) < 0.4
    for name, parameter in plain(0).named_parameters()
    if parameter.dim() > 1
}
MASKS["2.weight"][3] = False  # a channel of which only the bias is left


def checkpoint(seed: int) -> Checkpoint:
    state = {name: each.clone() for name, each in plain(seed).state_dict().items()}
    return Checkpoint({n: each * MASKS.get(n, 1) for n, each in state.items()}, MASKS, {})


CANDIDATES = [checkpoint(seed) for seed in range(3)]


def network(of: Checkpoint) -> nn.Module:
    model = plain(0)
    model.load_state_dict(of.state)
    return model


def measure(of: Checkpoint, goals: repair.Moments | None = None) -> repair.Moments:
    return channel_moments(network(of), IMAGES, MEAN, STD, goals)


def by_hand(model: nn.Module) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return mean and variance of what each layer gives, over images and positions at once."""
    x, found = (IMAGES.float() / 255 - MEAN) / STD, {}
    for name, layer in model.named_children():
        x = layer(x).detach()
        if name in LAYERS:
            rows = x.double().transpose(0, 1).flatten(1).numpy()
            found[name] = rows.mean(1), rows.var(1, ddof=1)
    return found


def test_layers_with_a_bias_before_the_classifier_are_corrected():
    assert correctable(plain(0)) == LAYERS
    assert correctable(small()) == [], "BatchNorm is re-estimated instead"
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.Linear(2, 2), nn.Linear(2, 2))
    assert correctable(model) == ["1"]


def test_moments_are_those_of_the_outputs_before_the_activation():
    model = network(CANDIDATES[0])
    found, expected = measure(CANDIDATES[0]), by_hand(model)
    assert list(found) == LAYERS
    for name, (mean, variance) in expected.items():
        np.testing.assert_allclose(found[name][0], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[name][1], variance, rtol=1e-4, atol=1e-5)


def test_a_measured_network_is_left_as_it_was():
    model = network(CANDIDATES[0]).train()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    channel_moments(model, IMAGES, MEAN, STD, {"0": (torch.zeros(6), torch.ones(6))})
    assert model.training
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def repaired(candidates: Sequence[Checkpoint]) -> Checkpoint:
    return repair.merge(candidates, activations=measure).checkpoint


def test_the_soup_has_the_mean_of_the_candidates_means_and_deviations():
    """The law of the paper: in one forward pass, layer by layer, on plain arrays."""
    each = [by_hand(network(candidate)) for candidate in CANDIDATES]
    soup, unrepaired = by_hand(network(repaired(CANDIDATES))), by_hand(network(average(CANDIDATES)))
    for name in LAYERS:
        mean = np.mean([found[name][0] for found in each], 0)
        deviation = np.mean([np.sqrt(found[name][1]) for found in each], 0)
        np.testing.assert_allclose(soup[name][0], mean, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(np.sqrt(soup[name][1]), deviation, rtol=1e-3, atol=1e-3)
        assert np.abs(np.sqrt(unrepaired[name][1]) - deviation).max() > 0.05, "it had to be scaled"


def test_weights_and_biases_are_those_of_one_layer_after_another():
    """Independent: correct layer 1, run, correct layer 2 on its outputs, and so on."""
    each = [by_hand(network(candidate)) for candidate in CANDIDATES]
    model = network(average(CANDIDATES))
    for name in LAYERS:
        layer, now = model.get_submodule(name), by_hand(model)[name]
        goal = np.mean([found[name][0] for found in each], 0)
        deviation = np.mean([np.sqrt(found[name][1]) for found in each], 0)
        scale = deviation / np.sqrt(now[1] + 1e-5)
        shape = (-1, *[1] * (layer.weight.dim() - 1))
        layer.weight.data *= torch.from_numpy(scale).float().view(shape)
        layer.bias.data = torch.from_numpy(
            scale * (layer.bias.detach().numpy() - now[0]) + goal
        ).float()
    soup = repaired(CANDIDATES)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(soup.state[name], tensor, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(soup.state["7.weight"], average(CANDIDATES).state["7.weight"])


def test_pruned_weights_are_zero_and_an_empty_channel_has_its_mean_bias():
    soup = repaired(CANDIDATES)
    for name, mask in MASKS.items():
        assert torch.equal(soup.masks[name], mask)
        assert not soup.state[name].view(torch.int32)[~mask].any(), "+0.0"
    bias = torch.stack([each.state["2.bias"][3] for each in CANDIDATES]).mean()
    torch.testing.assert_close(soup.state["2.bias"][3], bias)


def test_of_equals_is_the_same_network():
    """Up to n / (n - 1): a pass divides by biased variances, statistics are unbiased ones."""
    soup, one = repaired([CANDIDATES[0]] * 3), CANDIDATES[0]
    for name, tensor in one.state.items():
        torch.testing.assert_close(soup.state[name], tensor, rtol=5e-3, atol=1e-3)


def test_biases_of_pruned_filters_stay_zero():
    """Masks of whole filters cover the bias, and so does the repaired soup's zero."""
    dead = torch.arange(8) != 3
    masks = MASKS | {"2.bias": dead}
    models = [
        Checkpoint(dict(each.state) | {"2.bias": each.state["2.bias"] * dead}, masks, {})
        for each in CANDIDATES
    ]
    bias = repaired(models).state["2.bias"]
    assert bias[3].view(torch.int32) == 0
    assert bias[dead].all()


def test_tokens_are_channels_last_and_layers_that_a_pass_skips_are_left():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.skipped, self.out = nn.Linear(8, 5), nn.Linear(8, 5), nn.Linear(5, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.out(self.rows(images[:, 0]).mean(1))

    torch.manual_seed(0)
    model = Tokens()
    found = channel_moments(model, IMAGES, MEAN, STD)
    assert list(found) == ["rows"]
    rows = model.rows((IMAGES[:, 0].float() / 255 - MEAN) / STD).detach().flatten(0, 1)
    torch.testing.assert_close(found["rows"][0], rows.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["rows"][1], rows.var(0), rtol=1e-4, atol=1e-5)


NET = """
from torch import nn


def build(classes, channels):
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, classes)
    )
"""


@pytest.mark.parametrize("name", ["net", "resnet8"])
def test_the_stage_measures_on_the_training_images(name, tmp_path, monkeypatch):
    """A network of one's own is corrected; one with BatchNorm is its uniform soup."""
    (tmp_path / "net.py").write_text(NET)
    named = str(tmp_path / "net.py") if name == "net" else name
    if name == "net":
        monkeypatch.setattr(code_files, "_allowed", {code_files.locate(named)})
    folders = []
    for seed in range(2):
        torch.manual_seed(seed)
        state = build(named, 3, 1).state_dict()
        meta = {"network": named, "classes": 3, "channels": 1, "sparsity": 0.0}
        folders.append(tmp_path / f"c{seed}")
        write(folders[-1], Checkpoint(state, {}, meta), DATA, CPU)
    inputs = MergeInputs(folders, DATA, CPU)
    soup = repair.merge(inputs.candidates, activations=inputs.activations)
    mean = average(inputs.candidates)
    same = {n: torch.equal(soup.checkpoint.state[n], mean.state[n]) for n in mean.state}
    if name == "resnet8":
        assert all(same.values())
        assert "no layer is corrected" in soup.reason
    else:
        assert [n for n in same if not same[n]] == ["0.weight", "0.bias"]
        assert "activations of 1 layers" in soup.reason
