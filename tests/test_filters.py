"""Filters: exact counts by norm, and nothing left that speaks for one that is gone."""

from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from pipeline.averaging import mean
from pipeline.channels.operations import trace
from pipeline.channels.zero_channels import dead_parameter_masks
from pipeline.errors import UserError
from pipeline.models.build import build
from pipeline.models.wrn20 import WideBlock
from pipeline.prune.filters import filter_mask, prune_filters
from pipeline.prune.prunable import prunable
from pipeline.prune.reprune import average_union
from pipeline.soup.uniform import average as uniform
from pipeline.storage.checkpoint import Checkpoint, load, save
from pipeline.storage.checkpoint import sparsity as sparsity_of
from pipeline.train.batchnorm import reestimate
from pipeline.train.loop import train
from tests.test_loop import SETTINGS, dataset

fractions = st.decimals("0", "0.99", places=2)


class Wide(nn.Module):
    """The paper's WideResNet, small: a stem, two pre-activation blocks, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(WideBlock(6, 6, 1), WideBlock(6, 6, 1), WideBlock(6, 10, 2))
        self.bn1 = nn.BatchNorm2d(10)
        self.fc = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.bn1(self.blocks(self.conv1(x))))
        logits: Tensor = self.fc(hidden.mean((2, 3)))
        return logits


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every bias, scale and statistic a value that would be heard."""
    torch.manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            if layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
        elif isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.normal_(layer.bias)
    return model


NETWORKS = {"resnet8": lambda: build("resnet8", 4), "wide": Wide}


def network(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return randomised(NETWORKS[name](), seed)


def checkpoint_of(model: nn.Module) -> Checkpoint:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return Checkpoint(state, {}, {"phase": 0, "sparsity": 0.0})


def convolutions(model: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    return ((n, layer) for n, layer in model.named_modules() if isinstance(layer, nn.Conv2d))


def loaded(model: nn.Module, checkpoint: Checkpoint) -> nn.Module:
    model.load_state_dict(checkpoint.state)
    return model


def gone(checkpoint: Checkpoint, name: str) -> Tensor:
    """Return the filters of a convolution that are gone, read from the weights themselves."""
    return ~checkpoint.state[f"{name}.weight"].flatten(1).any(1)


@given(
    st.integers(0, 2**32), fractions, st.integers(1, 40), st.sampled_from([(1,), (3, 2, 2), (2, 5)])
)
def test_the_smallest_norms_go_in_exact_number_and_one_filter_stays(seed, sparsity, n, shape):
    """Against a stable sort of norms computed one by one; few values, so that norms tie."""
    random = np.random.default_rng(seed)
    weight = random.integers(-2, 3, (n, *shape)).astype(np.float32)
    k = min(int((sparsity * n).to_integral_value(ROUND_HALF_UP)), n - 1)
    norms = np.float32([sqrt(sum(float(w) ** 2 for w in row.ravel())) for row in weight])
    expected = np.ones(n, dtype=bool)
    expected[np.argsort(norms, kind="stable")[:k]] = False
    assert (filter_mask(torch.from_numpy(weight), float(sparsity)).numpy() == expected).all()


def test_among_equal_norms_the_earlier_filter_goes():
    kept = filter_mask(torch.ones(5, 1, 3, 3), 0.4)
    assert kept.tolist() == [False, False, True, True, True]


def test_a_filter_with_a_kept_weight_is_alive():
    """The parent pruned half of the strongest filter and all of the weakest but one."""
    weight = torch.tensor([[5.0, 0.0], [0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    mask = torch.tensor([[True, False], [False, False], [True, True], [True, True]])
    assert filter_mask(weight, 0.25, mask).tolist() == [True, False, True, True]
    assert filter_mask(weight, 0.5, mask).tolist() == [True, False, False, True]


@pytest.mark.parametrize("name", NETWORKS)
@given(sparsity=fractions)
def test_every_layer_alike_and_the_classifier_dense(name, sparsity):
    model = network(name)
    pruned, metrics = prune_filters(checkpoint_of(model), model, float(sparsity))
    left = total = 0
    for layer, convolution in convolutions(model):
        n = convolution.out_channels
        k = min(int((sparsity * n).to_integral_value(ROUND_HALF_UP)), n - 1)
        assert int(gone(pruned, layer).sum()) == k
        assert metrics["filters"][layer] == {"kept": n - k, "filters": n}
        left += (n - k) * convolution.weight[0].numel()
        total += convolution.weight.numel()
    classifier = model.fc.weight.numel()
    assert "fc.weight" not in pruned.masks
    assert metrics["kept"] == left + classifier
    assert metrics["sparsity"] == pytest.approx(1 - (left + classifier) / (total + classifier))
    assert pruned.meta["sparsity"] == sparsity_of(pruned, prunable(model)) == metrics["sparsity"]


def signals(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return what every layer made of ``images``, by its name, and what it was given."""
    made: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_hook(
            lambda _, given, out, name=name: made.update({f"{name}<": given[0], name: out})
        )
        for name, layer in model.named_modules()
        if not list(layer.children()) and name
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return made


def silent(tensor: Tensor) -> Tensor:
    """Return the channels of [B, C, ...] that are exactly 0 in all examples."""
    return ~tensor.transpose(0, 1).flatten(1).any(1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.9])
def test_a_filter_that_is_gone_contributes_nothing(name, sparsity, training):
    """No convolution emits it, and no BatchNorm makes something of a channel that is not there."""
    model = network(name)
    pruned, _ = prune_filters(checkpoint_of(model), model, sparsity)
    found = signals(loaded(model, pruned).train(training), torch.randn(4, 3, 8, 8))
    for layer, _ in convolutions(model):
        assert torch.equal(silent(found[layer]), gone(pruned, layer))
    norms = [n for n, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        assert torch.equal(silent(found[norm]), silent(found[f"{norm}<"]))
    assert any(silent(found[norm]).any() for norm in norms)


@pytest.mark.parametrize("name", NETWORKS)
def test_zero_weights_alone_would_still_be_heard(name):
    """Otherwise the masks of biases, scales and shifts would prove nothing."""
    model = network(name).eval()
    dense = checkpoint_of(model)
    pruned, _ = prune_filters(dense, model, 0.5)
    zero = {f"{layer}.weight": pruned.state[f"{layer}.weight"] for layer, _ in convolutions(model)}
    images = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        naive = loaded(model, Checkpoint(dense.state | zero, {}, {}))(images)
        assert not torch.allclose(loaded(model, pruned)(images), naive, rtol=0.01)


def test_a_stream_loses_a_channel_where_all_its_sources_have_lost_it():
    """By hand: stem without 0, 1; the blocks' outputs without 1, 2 and without 1, 3."""
    network = trace(Wide(), "take another")

    def without(n: int, *numbers: int) -> Tensor:
        kept = torch.ones(n, dtype=torch.bool)
        kept[list(numbers)] = False
        return kept

    masks = dead_parameter_masks(
        network,
        {
            "conv1": without(6, 0, 1),
            "blocks.0.conv1": without(6, 5),
            "blocks.0.conv2": without(6, 1, 2),
            "blocks.1.conv2": without(6, 1, 3),
        },
    )
    expected = {
        "conv1.bias": (0, 1),
        "blocks.0.bn1.weight": (0, 1),  # the stem alone
        "blocks.0.bn1.bias": (0, 1),
        "blocks.0.conv1.bias": (5,),
        "blocks.0.bn2.weight": (5,),
        "blocks.0.bn2.bias": (5,),
        "blocks.0.conv2.bias": (1, 2),
        "blocks.1.bn1.weight": (1,),  # stem and first block
        "blocks.1.bn1.bias": (1,),
        "blocks.1.conv2.bias": (1, 3),
        "blocks.2.bn1.weight": (1,),  # all three
        "blocks.2.bn1.bias": (1,),
    }
    assert masks.keys() == expected.keys()
    for name, numbers in expected.items():
        assert torch.equal(masks[name], without(6, *numbers)), name


@pytest.mark.parametrize("name", NETWORKS)
@given(st.data())
def test_what_is_gone_stays_gone(name, data):
    first, second = sorted(data.draw(st.tuples(fractions, fractions)))
    model = network(name)
    one, _ = prune_filters(checkpoint_of(model), model, float(first))
    stirred = {n: t + 5.0 * ~one.masks[n] if n in one.masks else t for n, t in one.state.items()}
    two, _ = prune_filters(Checkpoint(stirred, one.masks, one.meta), model, float(second))
    for name_, mask in one.masks.items():
        assert not (two.masks[name_] & ~mask).any()
        assert not two.state[name_][~two.masks[name_]].any()


def test_norm_drop_counts_all_that_pruning_took():
    model = network("wide")
    before = checkpoint_of(model)
    pruned, metrics = prune_filters(before, model, 0.5)
    names = [name for name, _ in model.named_parameters()]
    old = torch.cat([before.state[name].double().view(-1) for name in names])
    new = torch.cat([pruned.state[name].double().view(-1) for name in names])
    drop = float(((old**2).sum() - (new**2).sum()).sqrt() / old.norm())
    assert metrics["norm_drop"] == pytest.approx(drop, rel=1e-6)
    assert metrics["pruned_fraction"] == metrics["sparsity"]


def test_candidates_average_store_and_recalibrate_under_the_masks(tmp_path):
    model = network("wide")
    pruned, _ = prune_filters(checkpoint_of(model), model, 0.5)
    torch.manual_seed(1)
    candidates = []
    for _ in range(3):
        moved = {
            name: tensor + 0.1 * torch.randn_like(tensor) * pruned.masks.get(name, 1.0)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in pruned.state.items()
        }
        candidates.append(Checkpoint(moved, pruned.masks, pruned.meta))
    save(tmp_path / "soup.safetensors", uniform(candidates))
    soup = load(tmp_path / "soup.safetensors")
    assert soup.masks.keys() == pruned.masks.keys()
    for name, mask in pruned.masks.items():
        assert torch.equal(soup.masks[name], mask)
        assert torch.equal(soup.state[name] != 0, mask)
    loaded(model, soup)
    images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    reestimate(model, images, torch.full((3,), 0.5), torch.full((3,), 0.25))
    found = signals(model.eval(), torch.randn(4, 3, 8, 8))
    for layer, _ in convolutions(model):
        assert torch.equal(silent(found[layer]), gone(pruned, layer))
    assert torch.equal(silent(found["blocks.0.bn2"]), gone(pruned, "blocks.0.conv1"))


def test_training_under_the_masks_wakes_no_filter():
    """Momentum, Nesterov and decay included, and the masks of BatchNorm like those of weights."""
    torch.manual_seed(0)
    model = randomised(build("resnet8", 3, 1))
    pruned, _ = prune_filters(checkpoint_of(model), model, 0.5)
    loaded(model, pruned)
    train(model, dataset(), SETTINGS, [0.05] * 6, seed=0, masks=pruned.masks)
    state = model.state_dict()
    for name, mask in pruned.masks.items():
        assert torch.equal(state[name] != 0, mask), name
        assert not torch.equal(state[name], pruned.state[name])
    found = signals(model.eval(), torch.randn(4, 1, 8, 8))
    for layer, _ in convolutions(model):
        assert torch.equal(silent(found[layer]), gone(pruned, layer))


def test_runs_that_lost_different_filters_are_averaged_and_pruned_again():
    models = [network("wide", seed) for seed in range(3)]
    runs = [prune_filters(checkpoint_of(model), model, 0.5)[0] for model in models]
    names = prunable(models[0])
    superposed = average_union(runs, names)
    pruned, metrics = prune_filters(superposed, models[0], 0.5)
    average = mean([run.state for run in runs])
    assert sparsity_of(superposed, names) < metrics["sparsity"] == runs[0].meta["sparsity"]
    for layer, convolution in convolutions(models[0]):
        norms = average[f"{layer}.weight"].flatten(1).norm(dim=1)
        weakest = norms.argsort()[: int(0.5 * convolution.out_channels + 0.5)]
        assert set(gone(pruned, layer).nonzero().view(-1).tolist()) == set(weakest.tolist())


def test_connectivity_aware_averages_count_only_runs_that_keep_a_filter():
    """Of BatchNorm's scales as of weights."""
    models = [network("wide", seed) for seed in range(3)]
    runs = [prune_filters(checkpoint_of(model), model, 0.5)[0] for model in models]
    average = average_union(runs, prunable(models[0]), "caa").state
    scales = {name for run in runs for name in run.masks if "bn" in name and "weight" in name}
    assert scales
    for name in scales:
        values = torch.stack([run.state[name] for run in runs]).double()
        of_keepers = values.sum(0) / (values != 0).sum(0).clamp(min=1)
        torch.testing.assert_close(average[name].double(), of_keepers)
        assert ((values == 0).any(0) & (of_keepers != 0)).any(), "some keep it and some do not"


def test_the_filters_of_a_classifier_are_classes_and_stay():
    """As in SqueezeNet and in networks of pixels, whose last layer is a convolution."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    )
    pruned, metrics = prune_filters(checkpoint_of(model), model, 0.5)
    assert set(pruned.masks) == {"0.weight", "0.bias"}
    assert metrics["filters"] == {"0": {"kept": 4, "filters": 8}}


class Choosy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x)) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("model", "sparsity", "words"),
    [
        (nn.Sequential(nn.Linear(3, 2)), 0.5, "no convolution"),
        (Choosy(), 0.5, "cannot be traced.*prune.structure"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), 1.0, "the sparsity is 1.0"),
    ],
)
def test_what_cannot_be_pruned_is_refused(model, sparsity, words):
    with pytest.raises(UserError, match=words):
        prune_filters(checkpoint_of(model), model, sparsity)


def test_filters_never_come_back():
    model = network("wide")
    pruned, _ = prune_filters(checkpoint_of(model), model, 0.5)
    with pytest.raises(UserError, match="pruned weights stay pruned"):
        prune_filters(pruned, model, 0.2)


def test_decimal_sparsity_is_exact():
    """0.145 of 100 filters is 14.5, rounded up; in floats it would be 14."""
    assert int((~filter_mask(torch.rand(100, 2), 0.145)).sum()) == int(
        (Decimal("0.145") * 100).to_integral_value(ROUND_HALF_UP)
    )
