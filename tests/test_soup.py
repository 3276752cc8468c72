"""A soup is the mean of its candidates; a greedy one is never worse than the best of them."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pipeline.checkpoint import Checkpoint
from pipeline.errors import UserError
from pipeline.soup import Trial, greedy, uniform

MASK = torch.tensor([[True, False, True], [False, True, True]])

weights = npst.arrays(np.float32, (2, 3), elements=st.floats(-100, 100, width=32))
groups = st.lists(weights, min_size=1, max_size=6)


def candidate(values: np.ndarray | Sequence[float], batches: int = 3) -> Checkpoint:
    weight = torch.where(MASK, torch.tensor(np.asarray(values, np.float32)), 0.0)
    state = {"w": weight, "running_mean": weight.sum(0), "batches": torch.tensor(batches)}
    return Checkpoint(state, {"w": MASK}, {"network": "tiny"})


def point(value: float) -> Checkpoint:
    """Return a model of one weight, whose validation accuracy a test can make up."""
    return Checkpoint({"w": torch.tensor([value])}, {}, {})


class TestUniform:
    @given(groups)
    def test_is_the_exact_mean_rounded(self, values: list[np.ndarray]) -> None:
        """float64 sums: within one float32 rounding of the mean in rational numbers."""
        soup = uniform([candidate(each) for each in values]).state["w"]
        for i, j in np.ndindex(2, 3):
            exact = sum(Fraction(float(each[i, j])) for each in values) / len(values)
            expected = np.float32(float(exact)) if MASK[i, j] else 0.0
            scale = max(abs(float(each[i, j])) for each in values)
            assert abs(float(soup[i, j]) - expected) <= 1e-15 * scale + abs(expected) * 2**-23

    @given(groups)
    def test_agrees_with_numpy(self, values: list[np.ndarray]) -> None:
        soup = uniform([candidate(each) for each in values])
        expected = np.mean(np.stack(values).astype(np.float64), axis=0) * MASK.numpy()
        np.testing.assert_allclose(soup.state["w"], expected, rtol=1e-6, atol=1e-12)
        assert soup.state["w"].dtype == torch.float32

    @given(weights, st.integers(1, 10))
    def test_of_equals_is_the_same_bits(self, values: np.ndarray, m: int) -> None:
        one = candidate(values)
        soup = uniform([one] * m)
        assert all(torch.equal(soup.state[name], one.state[name]) for name in one.state)

    @given(groups, st.randoms(use_true_random=False))
    def test_order_does_not_matter(self, values: list[np.ndarray], random: object) -> None:
        turned = list(values)
        random.shuffle(turned)  # type: ignore[attr-defined]
        one = uniform([candidate(each) for each in values]).state["w"]
        other = uniform([candidate(each) for each in turned]).state["w"]
        torch.testing.assert_close(one, other, rtol=2e-7, atol=1e-12)

    @given(groups)
    def test_sparsity_survives(self, values: list[np.ndarray]) -> None:
        soup = uniform([candidate(each) for each in values])
        assert torch.equal(soup.masks["w"], MASK)
        assert not soup.state["w"][~MASK].any()

    def test_float_buffers_are_averaged_and_counters_are_not(self) -> None:
        soup = uniform([candidate(np.ones((2, 3)), 3), candidate(3 * np.ones((2, 3)), 8)])
        assert soup.state["running_mean"].tolist() == [2.0, 2.0, 4.0]
        assert soup.state["batches"] == 3
        assert soup.meta == {"network": "tiny"}

    def test_float64_sums(self) -> None:
        """In float32, 2^24 + 1 - 2^24 is 0."""
        soup = uniform([point(2.0**24), point(1.0), point(-(2.0**24))])
        assert soup.state["w"].item() == np.float32(1 / 3)


class TestRefusals:
    def test_nothing_to_average(self) -> None:
        with pytest.raises(UserError, match="at least one candidate"):
            uniform([])

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
                    {"w": torch.ones(2), "v": torch.ones(1)},
                    {"w": torch.tensor([True, False])},
                    {},
                ),
                "mask 'w'",
            ),
        ],
    )
    def test_the_first_key_that_does_not_fit_is_named(self, other: Checkpoint, named: str) -> None:
        first = Checkpoint({"w": torch.ones(2), "v": torch.ones(1)}, {}, {})
        with pytest.raises(UserError, match=named):
            uniform([first, first, other])
        with pytest.raises(UserError, match=named):
            greedy([first, first, other], [0.1, 0.2, 0.3], lambda _: 0.0)

    def test_unequal_masks(self) -> None:
        one, other = candidate(np.ones((2, 3))), candidate(np.ones((2, 3)))
        with pytest.raises(UserError, match="mask 'w'"):
            uniform([one, Checkpoint(other.state, {"w": ~MASK}, {})])

    def test_one_accuracy_a_candidate(self) -> None:
        with pytest.raises(ValueError, match="2 accuracies for 1 candidates"):
            greedy([point(1.0)], [0.1, 0.2], lambda _: 0.0)


class TestGreedy:
    def test_by_hand(self) -> None:
        """Accuracy 1 - |w|: from 0.2 take -0.4 (mean -0.1), refuse 0.9 (0.233), take 0.3 (.033).

        The last candidate tried is refused, so the soup is not the last one added.
        """
        candidates = [point(-0.4), point(0.9), point(0.2), point(-0.95), point(0.35)]
        accuracies = [1 - abs(each.state["w"].item()) for each in candidates]
        soup = greedy(candidates, accuracies, lambda tried: 1 - abs(tried.state["w"].item()))
        assert [trial.candidate for trial in soup.trials] == [2, 4, 0, 1, 3]
        assert [trial.accepted for trial in soup.trials] == [True, False, True, False, False]
        assert soup.taken == (0, 2)
        assert soup.checkpoint.state["w"].item() == pytest.approx(-0.1)
        assert soup.trials[2].val_accuracy == pytest.approx(0.9)

    def test_equal_accuracies_go_by_number_and_equal_scores_are_taken(self) -> None:
        candidates = [point(float(number)) for number in range(4)]
        soup = greedy(candidates, [0.5, 0.7, 0.5, 0.7], lambda _: 0.7)
        assert [trial.candidate for trial in soup.trials] == [1, 3, 0, 2]
        assert soup.taken == (0, 1, 2, 3)
        assert torch.equal(soup.checkpoint.state["w"], uniform(candidates).state["w"])

    @given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8), st.floats(-1, 1))
    def test_never_below_the_best_candidate(self, values: list[float], target: float) -> None:
        """On the score it selects by: any function of the one weight will do."""

        def score(checkpoint: Checkpoint) -> float:
            return -abs(checkpoint.state["w"].item() - target)

        candidates = [point(value) for value in values]
        alone = [score(each) for each in candidates]
        soup = greedy(candidates, alone, score)
        assert score(soup.checkpoint) >= max(alone)
        assert score(soup.checkpoint) == max(
            trial.val_accuracy for trial in soup.trials if trial.accepted
        )

    @given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8), st.integers(0, 99))
    def test_is_the_soup_of_the_accepted(self, values: list[float], seed: int) -> None:
        random = np.random.default_rng(seed)
        candidates = [point(value) for value in values]
        soup = greedy(candidates, list(random.random(len(values))), lambda _: random.random())
        accepted = [trial.candidate for trial in soup.trials if trial.accepted]
        assert soup.taken == tuple(sorted(accepted))
        expected = uniform([candidates[number] for number in sorted(accepted)])
        assert torch.equal(soup.checkpoint.state["w"], expected.state["w"])
        assert sorted(trial.candidate for trial in soup.trials) == list(range(len(values)))

    def test_one_candidate_needs_no_score(self) -> None:
        def score(_: Checkpoint) -> float:
            raise AssertionError

        assert greedy([point(1.0)], [0.4], score).trials == (Trial(0, 0.4, accepted=True),)
