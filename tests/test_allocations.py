"""How sparsity is spread over layers: exact totals, nested masks, the published equations."""

import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from math import ceil, prod

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.build import build
from pipeline.prune import rules
from pipeline.prune.allocations import _proportional, erk, latency, uniform_plus
from pipeline.prune.prunable import prunable

Shapes = dict[str, tuple[int, ...]]
EXACT = ["erk", "global", "lamp", "latency", "random", "uniform_plus"]  # uniform: each layer
REFUSED = "that uniform_plus can prune|latency keeps .* at least one a layer"
PERCENT = st.integers(0, 99).map(lambda percent: percent / 100)


class Costs(dict[str, float]):
    """Costs of layers of any name."""

    def __missing__(self, name: str) -> float:
        return 4.0 ** (sum(map(ord, name)) % 3)


def bound(name: str) -> Callable[..., dict[str, Tensor]]:
    """Return an allocation with its seed or its costs."""
    if name in rules.COSTED:
        return partial(latency.masks, costs=Costs())
    return rules.allocation(name, seed=1)


def count(sparsity: float, total: int) -> int:
    """Return round-half-up of a percentage, in whole numbers only."""
    return (round(100 * sparsity) * total + 50) // 100


def alive_everywhere(shapes: Shapes) -> dict[str, Tensor]:
    return {name: torch.ones(1, dtype=torch.bool).expand(shape) for name, shape in shapes.items()}


def magnitudes(shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """Return |w| of weights drawn as networks are: the fewer inputs, the larger."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator).abs() * (2 / prod(shape[1:])) ** 0.5
        for name, shape in shapes.items()
    }


def network(name: str, classes: int) -> Shapes:
    with torch.device("meta"):
        model = build(name, classes)
    state = model.state_dict()
    return {weight: tuple(state[weight].shape) for weight in prunable(model)}


def resnet50() -> Shapes:
    """Return the shapes of He et al.'s ResNet-50 for ImageNet, written down from their Table 1."""
    shapes: Shapes = {"stem": (64, 3, 7, 7)}
    inputs = 64
    for stage, blocks in enumerate([3, 4, 6, 3]):
        width = 64 * 2**stage
        for block in range(blocks):
            at = f"{stage}.{block}"
            shapes[f"{at}.reduce"] = (width, inputs, 1, 1)
            shapes[f"{at}.middle"] = (width, width, 3, 3)
            shapes[f"{at}.expand"] = (4 * width, width, 1, 1)
            if block == 0:
                shapes[f"{at}.shortcut"] = (4 * width, inputs, 1, 1)
            inputs = 4 * width
    return shapes | {"classifier": (1000, 2048)}


NETWORKS = {
    "resnet18": lambda: network("resnet18", 10),
    "wrn20": lambda: network("wrn20", 100),
    "resnet50": resnet50,
}


def test_the_networks_have_the_sizes_of_the_paper():
    sizes = {name: [prod(shape) for shape in make().values()] for name, make in NETWORKS.items()}
    assert {name: (len(each), sum(each)) for name, each in sizes.items()} == {
        "resnet18": (21, 11_164_352),
        "wrn20": (23, 26_842_032),
        "resnet50": (54, 25_502_912),
    }


@st.composite
def layers(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return scores with ties of one to five layers, and a random part of them alive."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)
    shapes = draw(st.lists(shape, min_size=1, max_size=5))
    levels = np.float32(random.random(draw(st.sampled_from([1, 3, 1000]))))
    scores = {
        str(i): torch.from_numpy(random.choice(levels, each)) for i, each in enumerate(shapes)
    }
    part = draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    alive = {
        str(i): torch.from_numpy(np.asarray(random.random(each) < random.choice([part, 1.0])))
        for i, each in enumerate(shapes)
    }
    return scores, alive


class TestEveryAllocation:
    @pytest.mark.parametrize("name", EXACT)
    @given(drawn=layers(), sparsity=PERCENT)
    def test_exact_totals_and_nested_masks_from_any_start(self, name, drawn, sparsity):
        scores, alive = drawn
        total = sum(score.numel() for score in scores.values())
        standing = sum(int(mask.sum()) for mask in alive.values())
        kept = total - count(sparsity, total)
        assume(kept <= standing)
        try:
            masks = bound(name)(scores, sparsity, alive)
        except UserError as error:
            assert re.search(REFUSED, str(error))  # noqa: PT017
            return
        assert list(masks) == list(scores)
        assert sum(int(mask.sum()) for mask in masks.values()) == kept
        for layer, mask in masks.items():
            assert mask.shape == scores[layer].shape
            assert not (mask & ~alive[layer]).any()

    @pytest.mark.parametrize("name", [name for name in EXACT if name not in {"global", "random"}])
    @given(drawn=layers(), sparsity=PERCENT)
    def test_a_layer_keeps_its_largest(self, name, drawn, sparsity):
        scores, alive = drawn
        total = sum(score.numel() for score in scores.values())
        assume(total - count(sparsity, total) <= sum(int(mask.sum()) for mask in alive.values()))
        try:
            masks = bound(name)(scores, sparsity, alive)
        except UserError:
            assume(False)
        for layer, mask in masks.items():
            kept, lost = scores[layer][mask], scores[layer][alive[layer] & ~mask]
            assert not len(kept) or not len(lost) or kept.min() >= lost.max()

    @pytest.mark.parametrize("name", EXACT)
    def test_what_is_pruned_cannot_come_back(self, name):
        alive = {"a": torch.zeros(2, 5, dtype=torch.bool), "b": torch.ones(1, 10, dtype=torch.bool)}
        scores = {layer: torch.rand(mask.shape) for layer, mask in alive.items()}
        with pytest.raises(UserError, match=r"0.4, but the model already has 0.5"):
            bound(name)(scores, 0.4, alive)


class TestBudget:
    @given(st.lists(st.tuples(*[st.integers(1, 30)] * 3), min_size=1, max_size=8), st.data())
    def test_one_factor_for_all_layers_between_their_limits(self, drawn, data):
        made = {
            str(i): _proportional.Layer(share, min(one, other) - 1, max(one, other))
            for i, (share, one, other) in enumerate(drawn)
        }
        least, most = (sum(getattr(each, end) for each in made.values()) for end in ("low", "high"))
        total = data.draw(st.integers(least, most))
        kept = _proportional.kept_counts(made, total)
        assert sum(kept.values()) == total
        ratio = {name: kept[name] / layer.share for name, layer in made.items()}
        for name, layer in made.items():
            assert layer.low <= kept[name] <= layer.high
            if kept[name] < layer.high:  # it would take more, so no other has a larger factor
                assert all(ratio[o] <= ratio[name] or kept[o] == made[o].low for o in made)
        counts = _proportional.round_to_total(kept, total)
        assert sum(counts.values()) == total
        for name, layer in made.items():
            assert abs(counts[name] - kept[name]) < 1
            assert layer.low <= counts[name] <= layer.high

    def test_the_largest_remainders_are_rounded_up_and_the_earlier_of_equals(self):
        thirds = {
            "a": Fraction(4, 3),
            "b": Fraction(5, 3),
            "c": Fraction(7, 2),
            "d": Fraction(1, 2),
        }
        assert _proportional.round_to_total(thirds, 7) == {"a": 1, "b": 2, "c": 4, "d": 0}


def densities_by_bisection(shapes: Shapes, kept: int) -> dict[str, float]:
    """Return min(1, e * sum(shape) / prod(shape)) with e found by halving an interval."""
    low, high = 0.0, float(max(prod(shape) for shape in shapes.values()))
    for _ in range(200):
        e = (low + high) / 2
        density = {name: min(1.0, e * sum(each) / prod(each)) for name, each in shapes.items()}
        too_many = sum(density[name] * prod(each) for name, each in shapes.items()) > kept
        low, high = (low, e) if too_many else (e, high)
    return density


class TestErk:
    @pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99])
    @pytest.mark.parametrize("name", NETWORKS)
    def test_densities_are_those_of_a_bisection(self, name, sparsity):
        shapes = NETWORKS[name]()
        total = sum(prod(shape) for shape in shapes.values())
        kept = total - count(sparsity, total)
        expected = densities_by_bisection(shapes, kept)
        ours = _proportional.kept_counts(erk.limits(alive_everywhere(shapes)), kept)
        for layer, shape in shapes.items():
            assert float(ours[layer] / prod(shape)) == pytest.approx(expected[layer], abs=1e-6)

    def test_masks_have_these_densities(self):
        shapes = network("resnet18", 10)
        sizes = {name: prod(shape) for name, shape in shapes.items()}
        masks = erk.masks(magnitudes(shapes, 0), 0.9, alive_everywhere(shapes))
        kept = sum(sizes.values()) - count(0.9, sum(sizes.values()))
        expected = densities_by_bisection(shapes, kept)
        found = {name: int(mask.sum()) for name, mask in masks.items()}
        assert sum(found.values()) == kept
        assert {name for name in sizes if found[name] == sizes[name]} == {
            name for name in sizes if expected[name] == 1
        }
        for name, size in sizes.items():
            assert abs(found[name] - expected[name] * size) < 1

    def test_by_hand(self):
        """4 + 2 + 3 + 3 = 12 and 10 + 4 = 14; then the cap; then a layer that is sparser."""
        shapes = {"conv": (4, 2, 3, 3), "linear": (10, 4)}
        limits = erk.limits(alive_everywhere(shapes))
        assert _proportional.kept_counts(limits, 26) == {"conv": 12, "linear": 14}
        assert _proportional.kept_counts(limits, 80) == {"conv": 40, "linear": 40}
        alive = alive_everywhere(shapes) | {"linear": (torch.arange(40) < 5).view(10, 4)}
        assert _proportional.kept_counts(erk.limits(alive), 26) == {"conv": 21, "linear": 5}


class TestUniformPlus:
    @pytest.mark.parametrize("sparsity", [0.3, 0.7, 0.8, 0.9, 0.98])
    @pytest.mark.parametrize("name", NETWORKS)
    def test_the_equation(self, name, sparsity):
        shapes = NETWORKS[name]()
        sizes = [prod(shape) for shape in shapes.values()]
        total, first, last = sum(sizes), sizes[0], sizes[-1]
        pruned = count(sparsity, total)
        alike = pruned / (total - first)
        rest = alike if alike <= 0.8 else (pruned - 0.8 * last) / (total - first - last)
        expected = [0.0, *[rest] * (len(sizes) - 2), min(alike, 0.8)]
        limits = uniform_plus.limits(alive_everywhere(shapes))
        ours = _proportional.kept_counts(limits, total - pruned)
        found = [1 - float(kept) / size for kept, size in zip(ours.values(), sizes, strict=True)]
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_masks(self):
        """At 75 %: 0 of 18, 40 of 50 (at most 80 %), and 56 of 60, so that it is 96 of 128."""
        shapes = {"stem": (2, 1, 3, 3), "middle": (5, 12), "classifier": (10, 5)}
        scores = magnitudes(shapes, 0)
        masks = uniform_plus.masks(scores, 0.75, alive_everywhere(shapes))
        lost = {name: int((~mask).sum()) for name, mask in masks.items()}
        assert lost == {"stem": 0, "middle": 56, "classifier": 40}
        masks = uniform_plus.masks(scores, 0.5, alive_everywhere(shapes))
        lost = {name: int((~mask).sum()) for name, mask in masks.items()}
        assert lost == {"stem": 0, "middle": 35, "classifier": 29}

    def test_more_than_the_exceptions_allow_is_refused(self):
        shapes = {"stem": (2, 1, 3, 3), "classifier": (10, 5)}
        scores, alive = magnitudes(shapes, 0), alive_everywhere(shapes)
        assert int((~uniform_plus.masks(scores, 0.58, alive)["classifier"]).sum()) == 39
        with pytest.raises(UserError, match=r"0.6 is more than the 0.588235 that uniform_plus can"):
            uniform_plus.masks(scores, 0.6, alive)

    def test_a_fifth_is_rounded_up(self):
        low = uniform_plus.limits({"classifier": torch.ones(3, 3, dtype=torch.bool)})
        assert low["classifier"].low == ceil(9 / 5)


def lamp_counts(scores: dict[str, Tensor], pruned: int) -> dict[str, int]:
    """Return how many of each layer LAMP keeps, by sorting every score there is."""
    lamp, owner = [], []
    for number, score in enumerate(scores.values()):
        squares = np.sort(score.numpy().ravel()).astype(np.longdouble) ** 2
        lamp.append((squares / np.cumsum(squares[::-1])[::-1]).astype(float))
        owner.append(np.full(len(squares), number))
    kept = np.concatenate(owner)[np.argsort(np.concatenate(lamp), kind="stable")[pruned:]]
    return dict(zip(scores, np.bincount(kept, minlength=len(scores)).tolist(), strict=True))


class TestLamp:
    def test_by_hand(self):
        """Scores 1/5 and 1; 9/25 and 1; 1. Among those that score 1, the first layer goes first."""
        layers = {"a": [1.0, 2.0], "b": [4.0, 3.0], "c": [0.1]}
        scores = {name: torch.tensor(each) for name, each in layers.items()}
        kept = []
        for sparsity in (0.2, 0.4, 0.6, 0.8):
            masks = rules.allocation("lamp")(scores, sparsity, alive_everywhere_like(scores))
            kept.append({name: mask.tolist() for name, mask in masks.items()})
        assert kept == [
            {"a": [False, True], "b": [True, True], "c": [True]},
            {"a": [False, True], "b": [True, False], "c": [True]},
            {"a": [False, False], "b": [True, False], "c": [True]},
            {"a": [False, False], "b": [False, False], "c": [True]},
        ]

    @given(st.integers(0, 999), st.lists(st.integers(1, 12), min_size=1, max_size=5), PERCENT)
    def test_equals_the_definition_weight_by_weight(self, seed, sizes, sparsity):
        random = np.random.default_rng(seed)
        weights = {str(i): random.random(size).astype(np.float32) for i, size in enumerate(sizes)}
        lamp = {
            (name, at): w**2 / sum(v**2 for v in map(float, each) if v >= w)
            for name, each in weights.items()
            for at, w in enumerate(map(float, each))
        }
        pruned = count(sparsity, sum(sizes))
        gone = sorted(lamp, key=lambda weight: lamp[weight])[:pruned]
        assume(pruned == 0 or lamp[gone[-1]] < 1)
        scores = {name: torch.from_numpy(each) for name, each in weights.items()}
        masks = rules.allocation("lamp")(scores, sparsity, alive_everywhere_like(scores))
        found = {
            (name, i) for name, mask in masks.items() for i in (~mask).nonzero().view(-1).tolist()
        }
        assert found == set(gone)

    @given(layers(), PERCENT)
    def test_no_layer_is_emptied_while_one_weight_a_layer_is_kept(self, drawn, sparsity):
        scores, _ = drawn
        total = sum(score.numel() for score in scores.values())
        assume(total - count(sparsity, total) >= len(scores))
        assume(all(score.max() > 0 for score in scores.values()))
        masks = rules.allocation("lamp")(scores, sparsity, alive_everywhere_like(scores))
        assert all(mask.any() for mask in masks.values())

    def test_pruned_weights_do_not_count_as_not_smaller(self):
        scores = {"a": torch.tensor([5.0, 1.0, 2.0]), "b": torch.tensor([3.0, 4.0, 9.0])}
        alive = {"a": torch.tensor([False, True, True]), "b": torch.tensor([True, True, False])}
        masks = rules.allocation("lamp")(scores, 0.5, alive)
        assert masks["a"].tolist() == [False, False, True]
        assert masks["b"].tolist() == [True, True, False]

    def test_densities_on_a_small_network(self):
        self.compare(network("resnet8", 10), 0.9)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", NETWORKS)
    def test_densities_on_the_papers_networks(self, name):
        self.compare(NETWORKS[name](), 0.9)

    def compare(self, shapes: Shapes, sparsity: float) -> None:
        scores = magnitudes(shapes, 0)
        masks = rules.allocation("lamp")(scores, sparsity, alive_everywhere_like(scores))
        expected = lamp_counts(scores, count(sparsity, sum(map(prod, shapes.values()))))
        for name, mask in masks.items():
            density = int(mask.sum()) / mask.numel()
            assert density == pytest.approx(expected[name] / mask.numel(), abs=1e-6)


class TestRandom:
    def masks(self, seed: int, sparsity: float, *sizes: int) -> dict[str, Tensor]:
        scores = {str(i): torch.arange(float(size)) for i, size in enumerate(sizes)}
        return rules.allocation("random", seed)(scores, sparsity, alive_everywhere_like(scores))

    def test_every_pair_of_four_is_equally_likely(self):
        """600 draws, 100 a pair; the chi-square of five degrees is below 20.5 in 99.9 %."""
        drawn = Counter(
            tuple(torch.cat(list(self.masks(seed, 0.5, 1, 3).values())).tolist())
            for seed in range(600)
        )
        assert len(drawn) == 6
        assert sum((n - 100) ** 2 / 100 for n in drawn.values()) < 20.5

    def test_layers_are_alike_up_to_chance(self):
        masks = self.masks(3, 0.9, 1_000, 100_000)
        for mask in masks.values():
            deviation = (0.1 * 0.9 / len(mask)) ** 0.5
            assert abs(float(mask.float().mean()) - 0.1) < 5 * deviation

    def test_the_seed_decides(self):
        one, same, other = (self.masks(seed, 0.5, 50)["0"] for seed in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)

    def test_a_seed_is_needed(self):
        with pytest.raises(UserError, match="random draws at random: give it a seed"):
            rules.allocation("random")


def alive_everywhere_like(scores: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}


@pytest.mark.parametrize(
    ("text", "random"),
    [
        ("def masks(scores, sparsity, alive, *, seed): ...", True),
        ("def masks(scores, sparsity, alive, seed=0): ...", True),
        ("def masks(scores, sparsity, alive): ...", False),
        ("masks = print", False),
    ],
)
def test_an_allocation_of_a_file_is_random_if_it_takes_a_seed(tmp_path, text, random):
    (tmp_path / "mine.py").write_text(f"{text}\n")
    assert rules.is_random(f"{tmp_path}/mine.py:masks") is random
