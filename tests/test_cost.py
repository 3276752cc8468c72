"""Parameters, multiply-accumulates and theoretical speed-up, counted by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.channels.products import WEIGHTLESS, macs
from pipeline.errors import UserError
from pipeline.evaluate.cost import cost
from pipeline.models.build import build
from pipeline.prune.prunable import check_network, prunable
from pipeline.registry import names
from pipeline.sparsify.base import SparsifyConfig
from pipeline.sparsify.build import build as build_method
from pipeline.sparsify.build import names as methods
from pipeline.train.loop import train
from tests.test_loop import SETTINGS, dataset


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 10), 8 * 10 * 10 * 3 * 9),
        (nn.Conv2d(3, 8, 3), (3, 10, 10), 8 * 8 * 8 * 3 * 9),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 9, 9), 8 * 5 * 5 * 3 * 9),
        (nn.Conv2d(8, 16, 3, groups=4), (8, 6, 6), 16 * 4 * 4 * (8 // 4) * 9),
        (nn.Conv2d(8, 8, 5, groups=8, padding=2), (8, 6, 6), 8 * 6 * 6 * 25),
        (nn.Conv2d(3, 8, 3, dilation=2), (3, 10, 10), 8 * 6 * 6 * 3 * 9),
        (nn.Conv2d(3, 8, (1, 5)), (3, 4, 9), 8 * 4 * 5 * 3 * 5),
        (nn.Conv1d(4, 6, 3), (4, 12), 6 * 10 * 4 * 3),
        (nn.ConvTranspose2d(3, 8, 3, stride=2), (3, 5, 5), 5 * 5 * 3 * 8 * 9),
        (nn.ConvTranspose2d(4, 8, 2, groups=2), (4, 5, 5), 5 * 5 * 4 * (8 // 2) * 4),
        (nn.Linear(7, 5, bias=False), (7,), 35),
        (nn.Linear(7, 5), (4, 7), 4 * 35),
    ],
    ids=repr,
)
def test_macs_of_one_layer(layer, shape, expected):
    assert macs(nn.Sequential(layer), torch.zeros(1, *shape)) == {"0": expected}


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)
        self.idle = nn.Linear(9, 9)

    def forward(self, x):
        x = self.norm(self.conv(self.conv(x)[..., ::2, ::2]))
        return self.head(x.mean((2, 3)))


def test_a_layer_called_twice_counts_both_sizes_and_an_idle_one_none():
    once = 4 * 4 * 9
    assert macs(Twice(), torch.zeros(1, 4, 8, 8)) == {"conv": once * (64 + 16), "head": 8}


def test_the_count_leaves_the_network_as_it_was():
    model = Twice().train()
    model.head.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    macs(model, torch.zeros(1, 4, 8, 8))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
    assert model.norm.training
    assert not model.head.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_failed_pass_takes_its_hooks_away():
    model = Twice()
    with pytest.raises(RuntimeError):
        macs(model, torch.zeros(1, 3, 8, 8))
    assert not any(module._forward_hooks for module in model.modules())


def test_speedup_weighs_each_layer_s_macs_by_what_is_kept():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 3)
    )
    conv, linear = torch.zeros(2, 1, 3, 3, dtype=torch.bool), torch.ones(3, 32, dtype=torch.bool)
    conv.view(-1)[:6] = True  # a third of 18
    linear[0, :24] = False  # 24 of 96
    found = cost(model, {"0.weight": conv, "3.weight": linear}, torch.zeros(1, 1, 4, 4))
    dense = 2 * 16 * 9, 3 * 32
    sparse = dense[0] * 6 / 18 + dense[1] * 72 / 96
    assert found["macs"] == sum(dense)
    assert found["sparse_macs"] == pytest.approx(sparse)
    assert found["speedup"] == pytest.approx(sum(dense) / sparse)
    assert found["parameters"] == 18 + 2 + 4 + 96 + 3
    assert found["nonzeros"] == found["parameters"] - 12 - 24
    assert found["layers"]["0"] == {"macs": 288, "weights": 18, "sparsity": pytest.approx(2 / 3)}
    assert found["layers"]["3"] == {"macs": 96, "weights": 96, "sparsity": 0.25}


def test_a_dense_network_is_as_fast_as_itself():
    found = cost(Twice(), {}, torch.zeros(1, 4, 8, 8))
    assert found["speedup"] == 1
    assert found["nonzeros"] == found["parameters"]
    assert [layer["sparsity"] for layer in found["layers"].values()] == [0, 0]


def test_sparsity_in_a_large_image_saves_more_than_in_a_small_one():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)
    )
    masks = {"0.weight": torch.tensor([True, False, False, False]).view(4, 1, 1, 1)}
    found = [cost(model, masks, torch.zeros(1, 1, side, side))["speedup"] for side in (1, 4, 64)]
    assert found == pytest.approx([20 / 17, 80 / 32, (4 * 64**2 + 16) / (64**2 + 16)])


def test_a_network_without_weights_is_refused():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(UserError, match="target_sparsity"):
        cost(model, {"0.weight": torch.zeros(2, 2, dtype=torch.bool)}, torch.zeros(1, 2))


class Attention(nn.Module):
    """One block of a transformer on 3 x 3 patches: L = 9 tokens of width d = 8, two heads."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.patches, self.position = nn.Conv2d(3, 8, 2, 2), nn.Parameter(torch.zeros(1, 9, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.fc = nn.Linear(8, 5)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.position
        other = dict.fromkeys(("k", "v"), tokens[..., :6]) if self.attention.kdim == 6 else {}
        keys, values = other.get("k", tokens), other.get("v", tokens)
        return self.fc(self.attention(tokens, keys, values, need_weights=False)[0].mean(1))


def test_attention_s_projections_are_pruned_and_counted_its_products_dense():
    """By hand: L * 3 d^2 into the heads, 2 L^2 d for Q K^T and A V, L * d^2 out of them."""
    model = Attention()
    weights = {"patches": 9 * 8 * 12, "attention.in_proj_weight": 9 * 3 * 64}
    weights |= {"attention.out_proj": 9 * 64, "fc": 40}
    assert macs(model, torch.zeros(1, 3, 6, 6)) == weights | {WEIGHTLESS: 2 * 81 * 8}
    assert [name.removesuffix(".weight") for name in prunable(model)] == list(weights)
    masks = {name: torch.zeros_like(model.get_parameter(name)).bool() for name in prunable(model)}
    for mask in masks.values():
        mask.view(-1)[: mask.numel() // 4] = True
    found = cost(model, masks, torch.zeros(1, 3, 6, 6))
    total, attention = sum(weights.values()), 2 * 81 * 8
    assert found["speedup"] == (total + attention) / (total / 4 + attention)
    assert found["layers"].keys() == weights.keys()
    assert torch.backends.mha.get_fastpath_enabled()


def test_projections_of_other_widths_are_counted_and_pruned():
    model = Attention(kdim=6, vdim=6)
    projections = {"q_proj_weight": 64, "k_proj_weight": 48, "v_proj_weight": 48}
    counts = macs(model, torch.zeros(1, 3, 6, 6))
    assert {f"attention.{name}" for name in projections} <= set(prunable(model))
    assert "attention.in_proj_weight" not in prunable(model)
    for name, size in projections.items():
        assert counts[f"attention.{name}"] == 9 * size


class Functional(nn.Module):
    """A weight used outside its layer, as in Swin; in two parts; copied by einsum; and shared."""

    def __init__(self) -> None:
        super().__init__()
        self.outside, self.parts, self.copied = (nn.Linear(4, 4, bias=False) for _ in range(3))
        self.first, self.again = nn.Linear(4, 4), nn.Linear(4, 4)
        self.again.weight = self.first.weight

    def forward(self, x):
        x = functional.linear(x, self.outside.weight)
        x = torch.cat([functional.linear(x, w) for w in self.parts.weight.chunk(2)], -1)
        x = torch.einsum("bnd,hde->bnhe", x, self.copied.weight.view(2, 2, 4).transpose(1, 2))
        return self.again(self.first(x.flatten(2)))


def test_a_product_counts_for_the_weight_whoever_asks_for_it():
    expected = dict.fromkeys(("outside", "parts", "copied"), 3 * 16) | {"first": 2 * 3 * 16}
    assert macs(Functional(), torch.zeros(1, 3, 4)) == expected


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.scale = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(1, 3))

    def forward(self, x):
        return functional.linear(x * self.scale, self.matrix)


def two_layers_of_one_weight() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (two_layers_of_one_weight(), (3,), r"0\.weight and 1\.weight are the same weight"),
        (Bare(), (3,), "multiplies by its parameter matrix, which is no weight of a Conv"),
        (nn.Sequential(nn.LSTM(3, 2)), (5, 3), r"parameter 0\.weight_ih_l0"),
        (nn.Sequential(nn.GRU(3, 2)), (5, 3), r"parameter 0\.weight_ih_l0"),
        (nn.Sequential(nn.Conv2d(3, 4, 5)), (3, 4, 4), r"shape \[3, 4, 4\].*set data\.size"),
        (nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), (1, 2, 2), r"shape \[1, 2, 2\]"),
    ],
)
def test_a_network_that_pruning_would_leave_dense_or_that_does_not_run_is_refused(
    model, shape, words
):
    with pytest.raises(UserError, match=words):
        check_network(model, torch.zeros(1, *shape))


@pytest.mark.parametrize("method", methods())
def test_attention_is_pruned_during_training_by_every_method(method):
    torch.manual_seed(0)
    data, model = dataset(), Attention()
    model.patches = nn.Conv2d(1, 8, 3, 3, padding=1)
    goal = SparsifyConfig(
        0.5, epochs=4, pruning_steps=1, lc_mu0=0.01, dst_alpha=0.01, str_init=-3.0
    )
    hook = build_method(method, goal)
    train(model, data, SETTINGS, [0.05] * 12, seed=0, hooks=[hook])
    assert set(hook.masks) == set(prunable(model))
    assert type(model.attention) is nn.MultiheadAttention
    for name, mask in hook.masks.items():
        assert torch.equal(model.get_parameter(name) != 0, mask), name
    assert 0 < hook.masks["attention.in_proj_weight"].float().mean() < 1


@pytest.mark.parametrize("name", sorted({*names("models")} - {"pspnet", "wrn20"}))
def test_our_own_networks_multiply_by_prunable_weights_only(name):
    if name.startswith("t5"):
        pytest.importorskip("transformers")
        model, example = build(name, 50, 2), torch.ones(1, 2, 6, dtype=torch.int64)
    else:
        model, example = build(name, 4), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    check_network(model, example)
    tied = {"lm_head"} if name.startswith("t5") else set()
    layers = {weight.removesuffix(".weight") for weight in prunable(model)}
    assert macs(model, example).keys() - {WEIGHTLESS} == layers | tied
