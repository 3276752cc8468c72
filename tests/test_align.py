"""Weight alignment: the same function in another order, a known order found again, a known best."""

from itertools import pairwise, permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.channels.matching import match
from pipeline.channels.permutation_spec import STAYS, PermutationSpec, permutation_spec
from pipeline.channels.permute import permuted, permuted_checkpoint
from pipeline.errors import UserError
from pipeline.models.build import build
from pipeline.prune.reprune import average_union
from pipeline.storage.checkpoint import Checkpoint, sparsity

SIZES = {  # a group a residual stream, and one inside each block; widths of the published networks
    "resnet8": [16, 16, 32, 32, 64, 64],
    "resnet20": [16] * 4 + [32] * 4 + [64] * 4,
    "resnet18": [64] * 3 + [128] * 3 + [256] * 3 + [512] * 3,
    "wrn20": [16] + [160] * 4 + [320] * 4 + [640] * 4,
}
WIDE = pytest.param("wrn20", marks=pytest.mark.slow)
ALL = ["resnet8", "resnet20", pytest.param("resnet18", marks=pytest.mark.slow), WIDE]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_order(sizes: dict[str, int], seed: int) -> dict[str, Tensor]:
    generator = seeded(seed)
    return {group: torch.randperm(size, generator=generator) for group, size in sizes.items()}


def network(name: str, seed: int = 0) -> nn.Module:
    """Return a network whose normalisation is no identity, so that its order matters too."""
    torch.manual_seed(seed)
    model = build(name, 10, 3).eval()
    generator = seeded(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data += 0.2 * torch.rand(tensor.shape, generator=generator)
    return model


def parameters(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("name", ALL)
def test_a_permuted_network_computes_the_same(name):
    model, images = network(name), torch.randn(2, 3, 16, 16, generator=seeded(1))
    channels = permutation_spec(model)
    assert sorted(channels.sizes.values()) == SIZES[name]
    with torch.no_grad():
        before = model(images)
        state = permuted(model.state_dict(), channels, random_order(channels.sizes, 1))
        changed = [
            key for key, old in model.state_dict().items() if not torch.equal(old, state[key])
        ]
        assert {key.rsplit(".", 1)[0] for key in changed} == {
            key.rsplit(".", 1)[0] for key in parameters(model)
        }, "every layer has channels that move"
        model.load_state_dict(state)
        assert torch.allclose(model(images), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_a_known_permutation_is_found_again(name):
    model = network(name)
    channels = permutation_spec(model)
    hidden = random_order(channels.sizes, 2)
    other = permuted(model.state_dict(), channels, hidden)
    found = match(model.state_dict(), other, channels, parameters(model), seed=0)
    for group, size in channels.sizes.items():
        assert torch.equal(hidden[group][found.order[group]], torch.arange(size)), group
    back = permuted(other, channels, found.order)
    assert all(torch.equal(tensor, back[key]) for key, tensor in model.state_dict().items())


def test_masks_move_with_their_weights():
    model = network("resnet8")
    channels = permutation_spec(model)
    masks = {
        name: torch.rand(weight.shape, generator=seeded(3)) < 0.3
        for name, weight in model.named_parameters()
        if weight.ndim > 1
    }
    state = {k: v * masks[k] if k in masks else v for k, v in model.state_dict().items()}
    moved = permuted_checkpoint(
        Checkpoint(state, masks, {"phase": 3}), channels, random_order(channels.sizes, 4)
    )
    assert moved.meta == {"phase": 3}
    for name, mask in moved.masks.items():
        assert torch.equal(moved.state[name] != 0, mask)
        assert mask.count_nonzero() == masks[name].count_nonzero()
        assert not torch.equal(mask, masks[name])


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


@given(seed=st.integers(0, 1000))
def test_one_hidden_layer_is_matched_as_well_as_by_trying_every_order(seed):
    """With one group the assignment is the whole problem: the least distance of all 4! orders."""
    torch.manual_seed(seed)
    one, two = mlp(), mlp()
    first, second = one.state_dict(), two.state_dict()
    found = match(first, second, permutation_spec(one), parameters(one), seed=seed)

    def distance(order: Tensor) -> float:
        moved = {
            "0.weight": second["0.weight"][order],
            "0.bias": second["0.bias"][order],
            "2.weight": second["2.weight"][:, order],
        }
        return sum(float((first[k] - moved[k]).double().square().sum()) for k in moved)

    least = min(distance(torch.tensor(order)) for order in permutations(range(4)))
    assert distance(found.order["0"]) == pytest.approx(least, rel=1e-6)


@settings(max_examples=8)
@given(seed=st.integers(0, 1000))
def test_the_agreement_never_falls_and_is_what_it_says(seed):
    one, two = network("resnet8", seed), network("resnet8", seed + 1)
    channels, names = permutation_spec(one), parameters(one)
    first, second = one.state_dict(), two.state_dict()
    found = match(first, second, channels, names, seed=seed)
    gains = [after - before for before, after in pairwise(found.agreement)]
    assert gains
    assert min(gains) > 0
    moved = permuted(second, channels, found.order)
    own = [name for name in names if name in channels.axes]
    dot = sum(float((first[name].double() * moved[name].double()).sum()) for name in own)
    assert found.agreement[-1] == pytest.approx(dot, rel=1e-9)
    for group, order in found.order.items():
        assert sorted(order.tolist()) == list(range(channels.sizes[group]))


def test_equal_seeds_find_equal_orders_and_a_network_matches_itself_as_it_is():
    one, two = network("resnet8", 0), network("resnet8", 1)
    channels, names = permutation_spec(one), parameters(one)
    states = one.state_dict(), two.state_dict()
    orders = [match(*states, channels, names, seed=5).order for _ in range(2)]
    assert all(torch.equal(orders[0][group], orders[1][group]) for group in channels.sizes)
    itself = match(states[0], states[0], channels, names, seed=5)
    assert len(itself.agreement) == 1
    assert all(torch.equal(o, torch.arange(len(o))) for o in itself.order.values())


class Twice(nn.Module):
    """A stream to which one convolution of itself is added: both of its axes are one group."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.fc = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.stem(images)
        hidden = hidden + self.conv(torch.relu(hidden))
        return self.fc(self.depthwise(hidden).mean((2, 3)))


def test_a_convolution_from_a_stream_to_itself_moves_on_both_axes():
    torch.manual_seed(0)
    model, images = Twice(), torch.randn(3, 1, 6, 6)
    channels = permutation_spec(model)
    (group,) = channels.sizes
    assert channels.axes["conv.weight"] == (group, group)
    assert channels.axes["fc.weight"] == (STAYS, group)
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = model(images)
    hidden = {group: torch.tensor([2, 0, 3, 1])}
    state = permuted(model.state_dict(), channels, hidden)
    model.load_state_dict(state)
    assert torch.allclose(model(images), before, atol=1e-6)
    found = match(first, state, channels, parameters(model), seed=0).agreement
    assert all(one < other for one, other in pairwise(found))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 2)), "flattened maps"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), "grouped convolution"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4)), "GroupNorm"),
    ],
)
def test_what_is_not_known_is_refused(model, words):
    with pytest.raises(UserError, match=words):
        permutation_spec(model)


def test_a_mean_over_channels_is_refused():
    class Mean(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean(1)

    with pytest.raises(UserError, match="mean"):
        permutation_spec(Mean())


def test_the_mean_is_as_sparse_as_what_all_masks_prune():
    """A network without a mask for a weight keeps it, as one does whose filters are all left."""
    names, state = ["w", "v"], {"w": torch.ones(4), "v": torch.ones(2), "scale": torch.ones(2)}
    w, v = torch.tensor([True, True, False, False]), torch.tensor([False, True])
    one = Checkpoint(state, {"w": w, "v": v, "scale": v}, {})
    two = Checkpoint(state, {"w": w.roll(1)}, {})
    assert sparsity(average_union([one, one], names), names) == pytest.approx(3 / 6)
    assert sparsity(average_union([one, two], names), names) == pytest.approx(1 / 6)


def test_a_symmetry_names_only_what_moves():
    assert permutation_spec(mlp()) == PermutationSpec(
        {"0": 4}, {"0.weight": ("0", STAYS), "0.bias": ("0",), "2.weight": (STAYS, "0")}
    )
