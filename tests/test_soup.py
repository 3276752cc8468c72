"""Every soup keeps the mask and is what its rule's equation says, worked out here by hand."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import Tensor

from pipeline import registry
from pipeline.errors import UserError
from pipeline.soup import build, distilled, greedy, learned, model_stock, uniform, wise
from pipeline.soup.base import Objective, Soup
from pipeline.storage.checkpoint import Checkpoint

asks = build.required_inputs
MASK = torch.tensor([[True, False, True], [False, True, True]])
RULES = ["distilled", "greedy", "learned", "model_stock", "repair", "uniform", "wise"]

weights = npst.arrays(np.float32, (2, 3), elements=st.floats(-100, 100, width=32))
groups = st.lists(weights, min_size=1, max_size=6)
numbers = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8)


def candidate(values: np.ndarray | Sequence[float], batches: int = 3) -> Checkpoint:
    weight = torch.where(MASK, torch.tensor(np.asarray(values, np.float32)), 0.0)
    state = {"w": weight, "running_mean": weight.sum(0), "batches": torch.tensor(batches)}
    return Checkpoint(state, {"w": MASK}, {"network": "tiny"})


def point(*values: float) -> Checkpoint:
    """Return a model of few weights, whose validation score a test can make up."""
    return Checkpoint({"w": torch.tensor(values)}, {}, {})


def never(*_: object) -> float:
    raise AssertionError


def squared(candidates: Sequence[Checkpoint], target: Sequence[float]) -> Objective:
    """Return the objective |w - target|^2 of points: dL/dc_i = 2 (w - target) . w_i."""
    points = torch.stack([each.state["w"].double() for each in candidates])
    wanted = torch.tensor(target, dtype=torch.float64)

    def value(soup: Checkpoint) -> float:
        return float((soup.state["w"].double() - wanted).square().sum())

    def slopes(coefficients: Tensor, step: int) -> Tensor:
        return 2 * points @ (coefficients @ points - wanted)

    return Objective([value(each) for each in candidates], value, slopes)


def merged(rule: str, candidates: Sequence[Checkpoint], parent: Checkpoint) -> Soup:
    """Merge by any rule; a model is the better, the smaller the sum of its weights."""

    def score(soup: Checkpoint) -> float:
        return -abs(float(soup.state["w"].double().sum()))

    sums = torch.stack([each.state["w"].double().sum() for each in candidates])
    objective = Objective(
        [-score(each) for each in candidates],
        lambda soup: -score(soup),
        lambda at, _: sums * (at @ sums).sign(),
    )
    given = {
        "scores": [score(each) for each in candidates],
        "score": score,
        "loss": objective,
        "distillation": objective,
        "parent": parent,
        "parameters": ["w"],
        "activations": lambda *_: {},  # no layer can be corrected
    }
    soup: Soup = build.load(rule).merge(candidates, **{name: given[name] for name in asks(rule)})
    return soup


def test_rules_are_the_files_of_the_folder() -> None:
    assert build.names() == registry.names("soup") == RULES
    lines = build.descriptions().values()
    assert all(line.endswith(").") for line in lines), "each names its source"
    with pytest.raises(UserError, match="merge is 'median': use one of distilled, greedy"):
        build.module_name("median")


@pytest.mark.parametrize("rule", RULES)
class TestEveryRule:
    @given(values=groups, start=weights)
    def test_keeps_the_mask_exactly(
        self, rule: str, values: list[np.ndarray], start: np.ndarray
    ) -> None:
        """Where pruned, the bits of +0.0; elsewhere within the span of candidates and parent."""
        models = [candidate(each) for each in values]
        soup = merged(rule, models, candidate(start))
        tensor = soup.checkpoint.state["w"]
        assert torch.equal(soup.checkpoint.masks["w"], MASK)
        assert not tensor.view(torch.int32)[~MASK].any()
        stacked = torch.stack([each.state["w"] for each in [*models, candidate(start)]])
        slack = 1e-6 * stacked.abs().amax(0)
        assert (tensor <= stacked.amax(0) + slack).all()
        assert (tensor >= stacked.amin(0) - slack).all()

    @given(values=groups, start=weights)
    def test_is_the_convex_sum_that_its_weights_say(
        self, rule: str, values: list[np.ndarray], start: np.ndarray
    ) -> None:
        soup = merged(rule, [candidate(each) for each in values], candidate(start))
        assert len(soup.weights) == len(values)
        assert all(weight >= 0 for weight in [*soup.weights, soup.parent_weight])
        assert math.isclose(sum(soup.weights) + soup.parent_weight, 1, abs_tol=1e-12)
        terms = zip([*values, start], [*soup.weights, soup.parent_weight], strict=True)
        expected = sum(weight * each.astype(np.float64) for each, weight in terms) * MASK.numpy()
        np.testing.assert_allclose(soup.checkpoint.state["w"], expected, rtol=1e-5, atol=1e-4)
        assert soup.included == tuple(i for i, weight in enumerate(soup.weights) if weight > 0)

    @given(values=weights, m=st.integers(1, 5))
    def test_of_equals_is_the_same_bits(self, rule: str, values: np.ndarray, m: int) -> None:
        one = candidate(values)
        if rule != "wise":  # which may prefer the parent
            soup = merged(rule, [one] * m, candidate(np.zeros((2, 3))))
            assert torch.equal(soup.checkpoint.state["w"], one.state["w"])
        soup = merged(rule, [one] * m, one)
        assert all(torch.equal(soup.checkpoint.state[name], one.state[name]) for name in one.state)

    @given(values=st.lists(st.integers(-50, 50), min_size=1, max_size=5, unique_by=abs))
    def test_order_does_not_matter(self, rule: str, values: list[int]) -> None:
        """Of candidates that differ in how good they are; equals go by number."""
        models = [candidate(np.full((2, 3), value)) for value in values]
        soup = merged(rule, models, candidate(np.ones((2, 3)))).checkpoint.state["w"]
        turned = merged(rule, models[::-1], candidate(np.ones((2, 3)))).checkpoint.state["w"]
        torch.testing.assert_close(soup, turned, rtol=1e-4, atol=1e-4)

    def test_counters_and_facts_are_the_first_candidates(self, rule: str) -> None:
        soup = merged(
            rule,
            [candidate(np.ones((2, 3)), 3), candidate(np.ones((2, 3)), 8)],
            Checkpoint(candidate(np.ones((2, 3)), 9).state, {"w": MASK}, {"phase": 1}),
        )
        assert soup.checkpoint.state["batches"] == 3
        assert soup.checkpoint.meta == {"network": "tiny"}

    def test_refuses_nothing_and_what_does_not_fit(self, rule: str) -> None:
        one = candidate(np.ones((2, 3)))
        other = Checkpoint({**one.state, "v": torch.ones(1)}, one.masks, {})
        masked = Checkpoint(one.state, {"w": ~MASK}, {})
        with pytest.raises(UserError, match="at least one candidate"):
            merged_bare(rule, [], one)
        with pytest.raises(UserError, match="candidates 0 and 1 differ in the tensor 'v'"):
            merged_bare(rule, [one, other], one)
        with pytest.raises(UserError, match="candidates 0 and 2 differ in the mask 'w'"):
            merged_bare(rule, [one, one, masked], one)
        if "parent" in asks(rule):
            with pytest.raises(UserError, match="parent and candidate 0 differ in the tensor 'v'"):
                merged_bare(rule, [one], other)
            with pytest.raises(UserError, match="parent and candidate 0 differ in the mask 'w'"):
                merged_bare(rule, [one], masked)


def merged_bare(rule: str, candidates: Sequence[Checkpoint], parent: Checkpoint) -> Soup:
    """Merge by a rule that should refuse before it measures anything."""
    objective = Objective([0.0] * len(candidates), never, lambda *_: torch.tensor(never()))
    given = {
        "scores": [0.0] * len(candidates),
        "score": never,
        "loss": objective,
        "distillation": objective,
        "parent": parent,
        "parameters": ["w"],
        "activations": never,
    }
    soup: Soup = build.load(rule).merge(candidates, **{name: given[name] for name in asks(rule)})
    return soup


class TestUniform:
    @given(groups)
    def test_is_the_exact_mean_rounded(self, values: list[np.ndarray]) -> None:
        """float64 sums: within one float32 rounding of the mean in rational numbers."""
        soup = uniform.merge([candidate(each) for each in values]).checkpoint.state["w"]
        for i, j in np.ndindex(2, 3):
            exact = sum(Fraction(float(each[i, j])) for each in values) / len(values)
            expected = np.float32(float(exact)) if MASK[i, j] else 0.0
            scale = max(abs(float(each[i, j])) for each in values)
            assert abs(float(soup[i, j]) - expected) <= 1e-15 * scale + abs(expected) * 2**-23

    @given(groups)
    def test_agrees_with_numpy(self, values: list[np.ndarray]) -> None:
        soup = uniform.merge([candidate(each) for each in values]).checkpoint
        expected = np.mean(np.stack(values).astype(np.float64), axis=0) * MASK.numpy()
        np.testing.assert_allclose(soup.state["w"], expected, rtol=1e-6, atol=1e-12)
        assert soup.state["w"].dtype == torch.float32

    def test_float_buffers_are_averaged_and_counters_are_not(self) -> None:
        models = [candidate(np.ones((2, 3)), 3), candidate(3 * np.ones((2, 3)), 8)]
        soup = uniform.merge(models)
        assert soup.checkpoint.state["running_mean"].tolist() == [2.0, 2.0, 4.0]
        assert soup.checkpoint.state["batches"] == 3
        assert (soup.weights, soup.included, soup.parent_weight) == ((0.5, 0.5), (0, 1), 0.0)

    def test_float64_sums(self) -> None:
        """In float32, 2^24 + 1 - 2^24 is 0."""
        soup = uniform.merge([point(2.0**24), point(1.0), point(-(2.0**24))])
        assert soup.checkpoint.state["w"].item() == np.float32(1 / 3)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (Checkpoint({"w": torch.ones(2)}, {}, {}), "0 and 2 differ in the tensor 'v'"),
        (
            Checkpoint({"w": torch.ones(2), "v": torch.ones(1), "u": torch.ones(1)}, {}, {}),
            "tensor 'u'",
        ),
        (Checkpoint({"w": torch.ones(3), "v": torch.ones(1)}, {}, {}), "tensor 'w'"),
        (Checkpoint({"w": torch.ones(2), "v": torch.ones(1).int()}, {}, {}), "tensor 'v'"),
        (
            Checkpoint(
                {"w": torch.ones(2), "v": torch.ones(1)}, {"w": torch.tensor([True, False])}, {}
            ),
            "mask 'w'",
        ),
    ],
)
def test_the_first_key_that_does_not_fit_is_named(other: Checkpoint, named: str) -> None:
    first = Checkpoint({"w": torch.ones(2), "v": torch.ones(1)}, {}, {})
    with pytest.raises(UserError, match=named):
        uniform.merge([first, first, other])


class TestGreedy:
    def test_by_hand(self) -> None:
        """Accuracy 1 - |w|: from 0.2 take -0.4 (mean -0.1), refuse 0.9 (0.233), take 0.3 (.033).

        The last candidate tried is refused, so the soup is not the last one added.
        """
        candidates = [point(-0.4), point(0.9), point(0.2), point(-0.95), point(0.35)]
        soup = greedy.merge(
            candidates,
            scores=[1 - abs(each.state["w"].item()) for each in candidates],
            score=lambda tried: 1 - abs(tried.state["w"].item()),
        )
        assert [trial["candidate"] for trial in soup.trials] == [2, 4, 0, 1, 3]
        assert [trial["accepted"] for trial in soup.trials] == [True, False, True, False, False]
        assert soup.included == (0, 2)
        assert soup.weights == (0.5, 0.0, 0.5, 0.0, 0.0)
        assert soup.checkpoint.state["w"].item() == pytest.approx(-0.1)
        assert soup.trials[2]["val_score"] == pytest.approx(0.9)
        assert soup.reason.startswith("2 of 5 candidates")

    def test_equal_accuracies_go_by_number_and_equal_scores_are_taken(self) -> None:
        candidates = [point(float(number)) for number in range(4)]
        own = [0.5, 0.7, 0.5, 0.7]
        soup = greedy.merge(candidates, scores=own, score=lambda _: 0.7)
        assert [trial["candidate"] for trial in soup.trials] == [1, 3, 0, 2]
        assert soup.included == (0, 1, 2, 3)
        assert soup.checkpoint.state["w"].item() == 1.5

    @given(numbers, st.floats(-1, 1))
    def test_never_below_the_best_candidate(self, values: list[float], target: float) -> None:
        """On the score it selects by: any function of the one weight will do."""

        def score(checkpoint: Checkpoint) -> float:
            return -abs(checkpoint.state["w"].item() - target)

        candidates = [point(value) for value in values]
        alone = [score(each) for each in candidates]
        soup = greedy.merge(candidates, scores=alone, score=score)
        assert score(soup.checkpoint) >= max(alone)
        accepted = [trial["val_score"] for trial in soup.trials if trial["accepted"]]
        assert score(soup.checkpoint) == max(accepted)

    @given(numbers, st.integers(0, 99))
    def test_is_the_soup_of_the_accepted(self, values: list[float], seed: int) -> None:
        random = np.random.default_rng(seed)
        candidates = [point(value) for value in values]
        own = list(random.random(len(values)))
        soup = greedy.merge(candidates, scores=own, score=lambda _: random.random())
        accepted = [trial["candidate"] for trial in soup.trials if trial["accepted"]]
        assert soup.included == tuple(sorted(accepted))
        expected = np.mean([values[number] for number in sorted(accepted)])
        assert soup.checkpoint.state["w"].item() == pytest.approx(expected, abs=1e-6)
        assert sorted(trial["candidate"] for trial in soup.trials) == list(range(len(values)))

    def test_one_candidate_needs_no_score(self) -> None:
        soup = greedy.merge([point(1.0)], scores=[0.4], score=never)
        assert soup.trials == ({"candidate": 0, "val_score": 0.4, "accepted": True},)

    def test_one_score_a_candidate(self) -> None:
        with pytest.raises(ValueError, match="2 scores for 1 candidates"):
            greedy.merge([point(1.0)], scores=[0.1, 0.2], score=never)


class TestLearned:
    @pytest.mark.parametrize(("rule", "given"), [(learned, "loss"), (distilled, "distillation")])
    @pytest.mark.parametrize("known", [(0.2, 0.3, 0.5), (0.7, 0.2, 0.1), (0.05, 0.9, 0.05)])
    def test_finds_the_least_of_a_quadratic(self, rule, given, known) -> None:
        """Of corners of a triangle: the coefficients of a point in it are its barycentric ones.

        Near a corner, where the softmax is flat, they are less exact than the loss.
        """
        corners = np.array([(0.0, 0.0), (4.0, 0.0), (1.0, 3.0)])
        candidates = [point(*corner) for corner in corners]
        objective = squared(candidates, known @ corners)
        soup = rule.merge(candidates, **{given: objective})
        assert soup.weights == pytest.approx(known, abs=0.02 if max(known) < 0.8 else 0.07)
        assert objective.value(soup.checkpoint) < 0.02 * soup.trials[-1]["loss"], "of the mean's"
        assert soup.reason.startswith("learned: of 5 combinations the least ")

    def test_of_two_by_hand(self) -> None:
        """Loss (c - 0.8)^2 of c w_1 + (1 - c) w_0, w_0 = 0, w_1 = 1: from 0.5 c goes to 0.8."""
        candidates = [point(0.0), point(1.0)]
        soup = learned.merge(candidates, loss=squared(candidates, [0.8]))
        assert soup.weights == pytest.approx((0.2, 0.8), abs=0.02)
        tried = {trial["tried"]: trial["loss"] for trial in soup.trials}
        assert tried["uniform"] == pytest.approx(0.09)
        assert tried["candidate 0 alone"] == pytest.approx(0.64)
        assert tried["candidate 1 alone"] == pytest.approx(0.04)
        assert soup.checkpoint.state["w"].item() == pytest.approx(0.8, abs=0.02)

    @given(
        st.lists(st.tuples(*[st.floats(-9, 9, width=32)] * 2), min_size=1, max_size=5),
        st.tuples(st.floats(-9, 9), st.floats(-9, 9)),
        st.integers(0, 99),
    )
    def test_never_worse_than_the_mean_and_every_candidate(self, values, target, seed) -> None:
        """Whatever the slopes say, wrong ones included."""
        candidates = [point(*value) for value in values]
        true = squared(candidates, target)
        random = torch.Generator().manual_seed(seed)

        def slopes(coefficients: Tensor, step: int) -> Tensor:
            return torch.randn(len(values), generator=random, dtype=torch.float64)

        mean = uniform.merge(candidates).checkpoint
        for objective in (true, Objective(true.candidate_losses, true.value, slopes)):
            found = true.value(learned.merge(candidates, loss=objective).checkpoint)
            assert found <= min([true.value(mean), *true.candidate_losses]) + 1e-5

    def test_every_step_follows_the_gradient_through_the_softmax(self, monkeypatch) -> None:
        """dL/dz of L(softmax(z)) by autograd; Adam alone would hide the size of a first step."""
        corners = torch.tensor([(0.0, 0.0), (4.0, 0.0), (1.0, 3.0)], dtype=torch.float64)
        target = torch.tensor((3.0, 0.5), dtype=torch.float64)
        pairs = []

        class Recorded(torch.optim.Adam):
            def step(self) -> None:
                z = self.param_groups[0]["params"][0]
                again = z.detach().clone().requires_grad_()
                (again.softmax(0) @ corners - target).square().sum().backward()
                pairs.append((z.grad, again.grad))
                super().step()

        objective = squared([point(*corner) for corner in corners.tolist()], target.tolist())
        monkeypatch.setattr(torch.optim, "Adam", Recorded)
        learned.learn(objective, 3)
        assert len(pairs) == learned.STEPS
        for taken, expected in pairs:
            torch.testing.assert_close(taken, expected, rtol=1e-9, atol=1e-12)

    def test_where_the_mean_is_worse_than_a_candidate_it_takes_the_candidate(self) -> None:
        """A loss barrier between two: no step from the mean finds an end, but the end is known."""
        candidates = [point(-1.0), point(1.0)]

        def value(soup: Checkpoint) -> float:
            return 1 - soup.state["w"].item() ** 2

        flat = Objective([0.1, 0.0], value, lambda *_: torch.zeros(2).double())
        soup = learned.merge(candidates, loss=flat)
        assert (soup.weights, soup.included) == ((0.0, 1.0), (1,))
        reason = "candidate 1 alone: of 4 combinations the least validation loss"
        assert soup.reason.startswith(reason)

    def test_equally_good_is_the_mean(self) -> None:
        candidates = [point(1.0), point(1.0)]
        assert learned.merge(candidates, loss=squared(candidates, [1.0])).weights == (0.5, 0.5)


class TestModelStock:
    def test_of_two_by_hand(self) -> None:
        """From (1, 1) to (3, 1) and to (2, 2): 45 degrees, t = 2 c / (1 + c), c = 1 / sqrt 2."""
        soup = model_stock.merge(
            [point(3.0, 1.0), point(2.0, 2.0)], parent=point(1.0, 1.0), parameters=["w"]
        )
        t = 2 * math.sqrt(0.5) / (1 + math.sqrt(0.5))
        expected = [1 + t * 1.5, 1 + t * 0.5]
        assert soup.checkpoint.state["w"].tolist() == pytest.approx(expected)
        assert soup.weights == pytest.approx((t / 2, t / 2))
        assert soup.parent_weight == pytest.approx(1 - t)
        assert "0.8284 of the way" in soup.reason
        assert "0.7071" in soup.reason

    @given(st.integers(2, 6), st.floats(0.01, 0.99))
    def test_is_the_foot_of_the_perpendicular_from_the_centre(self, m: int, cos: float) -> None:
        """Jang et al.'s picture, with the parent at 0 and ways w_i of one length and one angle.

        The centre mu has mu . (w_i - mu) = 0 and (w_i - mu) . (w_j - mu) = 0, hence
        mu . w_i = |mu|^2 = w_i . w_j. The foot of its perpendicular has the same products.
        """
        gram = np.full((m, m), cos) + (1 - cos) * np.eye(m)
        ways = np.linalg.cholesky(gram)
        start = np.arange(m, dtype=np.float64)
        candidates = [Checkpoint({"w": torch.tensor(start + way)}, {}, {}) for way in ways]
        parent = Checkpoint({"w": torch.tensor(start)}, {}, {})
        soup = model_stock.merge(candidates, parent=parent, parameters=["w"])
        found = soup.checkpoint.state["w"].numpy() - start
        assert ways @ found == pytest.approx(np.full(m, ways[0] @ ways[1]))

    def test_orthogonal_ways_give_the_parent_and_opposite_ones_too(self) -> None:
        for other in (point(0.0, 2.0), point(-1.0, 0.0)):
            soup = model_stock.merge(
                [point(1.0, 0.0), other], parent=point(0.0, 0.0), parameters=["w"]
            )
            assert soup.checkpoint.state["w"].tolist() == [0.0, 0.0]
            assert (soup.weights, soup.included, soup.parent_weight) == ((0.0, 0.0), (), 1.0)

    def test_parallel_ways_give_the_mean(self) -> None:
        candidates = [point(1.0, 2.0), point(2.0, 4.0), point(3.0, 6.0)]
        soup = model_stock.merge(candidates, parent=point(0.0, 0.0), parameters=["w"])
        assert soup.checkpoint.state["w"].tolist() == pytest.approx([2.0, 4.0])
        assert soup.parent_weight == pytest.approx(0.0, abs=1e-12)

    def test_only_parameters_make_the_angle(self) -> None:
        """Buffers differ as they like; each trained tensor's own angle is told beside."""
        states = [
            {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([2.0]), "mean": torch.tensor([9.0])},
            {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([2.0]), "mean": torch.tensor([-9.0])},
        ]
        start = {name: torch.zeros_like(tensor) for name, tensor in states[0].items()}
        soup = model_stock.merge(
            [Checkpoint(state, {}, {}) for state in states],
            parent=Checkpoint(start, {}, {}),
            parameters=["a", "b"],
        )
        cosines = {trial["tensor"]: trial["cosine"] for trial in soup.trials}
        assert cosines == pytest.approx({"a": 0.0, "b": 1.0})
        t = 2 * 0.8 / 1.8  # both ways have the square 5, their product is 4
        assert soup.weights == pytest.approx((t / 2, t / 2))

    def test_one_candidate_and_one_that_never_moved(self) -> None:
        here = point(1.0, 2.0)
        for candidates in ([here], [here, here]):
            soup = model_stock.merge(candidates, parent=here, parameters=["w"])
            assert soup.checkpoint.state["w"].tolist() == [1.0, 2.0]


class TestWise:
    @pytest.mark.parametrize(("target", "a"), [(3.0, 1.0), (2.21, 0.6), (-9.0, 0.0), (0.9, 0.0)])
    def test_takes_the_best_point_of_the_line(self, target: float, a: float) -> None:
        """From the parent 1 to the mean 3 of 2 and 4: the grid has 1, 1.2, ..., 3."""
        soup = wise.merge(
            [point(2.0), point(4.0)],
            parent=point(1.0),
            score=lambda model: -abs(model.state["w"].item() - target),
        )
        assert soup.checkpoint.state["w"].item() == pytest.approx(1 + 2 * a)
        assert soup.weights == pytest.approx((a / 2, a / 2))
        assert soup.parent_weight == pytest.approx(1 - a)
        assert [trial["a"] for trial in soup.trials] == [k / 10 for k in range(10, -1, -1)]
        assert f"a = {a:g} of the way" in soup.reason

    @given(groups, weights)
    def test_a_1_is_the_uniform_soup_and_equally_good_points_give_it(self, values, start) -> None:
        models = [candidate(each) for each in values]
        soup = wise.merge(models, parent=candidate(start), score=lambda _: 0.5)
        mean = uniform.merge(models).checkpoint
        assert soup.parent_weight == 0.0
        for name, tensor in mean.state.items():
            assert torch.equal(soup.checkpoint.state[name], tensor)
