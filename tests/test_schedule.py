"""Every schedule against a NumPy version written from the paper's words, and the laws between."""

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.schedules.retrain_lr import SCHEDULES, allr_peak, learning_rates, pretrain_rates
from pipeline.schedules.sparsity import ramp

lengths = st.integers(1, 400)
rates = st.floats(1e-6, 10)
traces = st.lists(st.floats(0, 1), min_size=1, max_size=60).filter(lambda rates: rates[-1] > 0)

Array = np.ndarray


def with_warm_up(steps: int, peak: float, decay: Callable[[Array], Array]) -> Array:
    """Spend a tenth of the steps rising to ``peak``; then decay over progress 0, 1/D, ... < 1."""
    warm = int(np.floor(steps / 10))
    rising = np.linspace(0, peak, warm + 1)[1:]
    return np.concatenate([rising, decay(np.linspace(0, 1, steps - warm, endpoint=False))])


def reference(name: str, steps: int, trace: Sequence[float]) -> Array:
    eta = np.array(trace)
    if name == "FT":
        return np.full(steps, eta[-1])
    if name == "LRW":
        return eta[len(eta) - steps :]
    if name == "CLR":
        mid, half = (eta.max() + eta.min()) / 2, (eta.max() - eta.min()) / 2
        return with_warm_up(steps, eta.max(), lambda done: mid + half * np.cos(np.pi * done))
    return with_warm_up(steps, eta.max(), lambda done: eta.max() * (1 - done))


class TestRetraining:
    @pytest.mark.parametrize("name", ["FT", "CLR", "LLR"])
    @given(lengths, traces)
    def test_against_numpy(self, name: str, steps: int, trace: list[float]) -> None:
        result = learning_rates(name, steps, trace)
        np.testing.assert_allclose(result, reference(name, steps, trace), rtol=1e-9, atol=1e-12)

    @given(traces, st.data())
    def test_rewinding_is_the_tail(self, trace: list[float], data: st.DataObject) -> None:
        steps = data.draw(st.integers(1, len(trace)))
        result = learning_rates("LRW", steps, trace)
        np.testing.assert_array_equal(result, reference("LRW", steps, trace))

    @given(st.integers(1, 40), st.integers(1, 10))
    def test_scaled_restarting_stretches_evenly(self, length: int, times: int) -> None:
        """Stretched by a whole factor, every rate of the trace stands that many times."""
        trace = list(np.linspace(1, 0.1, length))
        rest = length * times
        steps = next(n for n in range(rest, 2 * rest + 2) if n - n // 10 == rest)
        result = learning_rates("SLR", steps, trace)
        np.testing.assert_allclose(result[: steps // 10], np.linspace(0, 1, steps // 10 + 1)[1:])
        np.testing.assert_array_equal(result[steps // 10 :], np.repeat(trace, times))

    def test_scaled_restarting_compresses_the_whole_trace(self) -> None:
        """200 epochs with drops after 45 % and 90 % keep their shares of 90 steps."""
        trace = pretrain_rates("multistep", 2000, 0.1, milestones=(0.45, 0.9))
        expected = [*np.arange(1, 11) / 100, *[0.1] * 41, *[0.01] * 40, *[0.001] * 9]
        np.testing.assert_allclose(learning_rates("SLR", 100, trace), expected)

    def test_scaled_restarting_warms_up_to_the_first_rate_of_the_trace(self) -> None:
        """A trace that begins with a warm-up of its own: its largest rate is not its first."""
        expected = [0.1, 0.2, *[0.2] * 6, *[1.0] * 6, *[0.4] * 6]
        assert learning_rates("SLR", 20, [0.2, 1.0, 0.4]) == pytest.approx(expected)

    @pytest.mark.parametrize("name", sorted(SCHEDULES))
    @given(st.integers(1, 50), st.integers(50, 300), rates, rates)
    def test_scaled_to_a_peak(
        self, name: str, steps: int, length: int, eta: float, peak: float
    ) -> None:
        trace = pretrain_rates("cosine", length, eta)
        result = learning_rates(name, steps, trace, peak=peak)
        assert len(result) == steps
        assert max(result) == peak
        assert min(result) > 0
        plain = np.array(learning_rates("LLR" if name == "ALLR" else name, steps, trace))
        np.testing.assert_allclose(np.array(result) / peak, plain / plain.max(), rtol=1e-9)

    def test_linear_by_hand(self) -> None:
        """Twenty steps: two of warm-up, then 18 eighteenths down to one."""
        expected = [0.5, 1.0, *[1 - j / 18 for j in range(18)]]
        assert learning_rates("LLR", 20, [0.1, 1.0, 0.3]) == pytest.approx(expected)
        assert learning_rates("LLR", 1, [1.0]) == [1.0]

    def test_adaptive_is_linear_from_its_peak(self) -> None:
        trace = pretrain_rates("linear", 90, 0.1)
        lower = learning_rates("ALLR", 30, trace, peak=0.05)
        np.testing.assert_allclose(np.array(lower) * 2, learning_rates("LLR", 30, trace))

    @pytest.mark.parametrize(
        ("name", "steps", "trace", "peak", "named"),
        [
            ("SGD", 10, [0.1], None, "'SGD': use one of FT, LRW, SLR, CLR, LLR, ALLR"),
            ("LLR", 0, [0.1], None, "retrain.epochs is 0"),
            ("LLR", 5, [], None, "trace"),
            ("LLR", 5, [0.0, 0.0], None, "trace"),
            ("LLR", 5, [0.1, float("nan")], None, "trace"),
            ("LLR", 5, [0.1, -0.1], None, "trace"),
            ("LRW", 3, [0.1, 0.1], None, "3 steps, but must be at most pretraining's 2"),
            ("LRW", 1, [0.1, 0.0], None, "all be 0"),
            ("FT", 1, [0.1, 0.0], None, "all be 0"),
            ("ALLR", 5, [0.1], None, "peak of ALLR"),
            ("LLR", 5, [0.1], 0.0, "retrain.learning_rate is 0.0"),
            ("LLR", 5, [0.1], float("inf"), "retrain.learning_rate is inf"),
        ],
    )
    def test_refusals(
        self, name: str, steps: int, trace: list[float], peak: float | None, named: str
    ) -> None:
        with pytest.raises(UserError, match=named):
            learning_rates(name, steps, trace, peak=peak)


class TestAllrPeak:
    @given(rates, st.floats(0, 1), st.floats(0, 1), st.integers(1, 500), st.integers(1, 500))
    def test_is_the_clipped_formula(
        self, eta: float, drop: float, fraction: float, retrain: int, pretrain: int
    ) -> None:
        low = eta * min(retrain / pretrain, 1)
        wanted = eta * drop / np.sqrt(fraction) if fraction else 0.0
        result = allr_peak(eta, drop, fraction, retrain, pretrain)
        assert result == pytest.approx(np.clip(wanted, low, eta), rel=1e-9)
        assert low * (1 - 1e-12) <= result <= eta

    @pytest.mark.parametrize(
        ("drop", "retrain", "pretrain", "expected"),
        [
            (0.1, 10, 200, 0.1 * 0.1 / sqrt(0.7)),  # between the bounds
            (0.01, 10, 200, 0.1 * 10 / 200),  # little was lost: as long as there is time
            (0.95, 10, 200, 0.1),  # much was lost: pretraining's
            (0.01, 300, 200, 0.1),  # longer than pretraining
            (0.01, 1, 0, 0.1),  # weights of unknown training
        ],
    )
    def test_by_hand(self, drop: float, retrain: int, pretrain: int, expected: float) -> None:
        assert allr_peak(0.1, drop, 0.7, retrain, pretrain) == pytest.approx(expected)


class TestPretraining:
    @pytest.mark.parametrize("batches", [1, 7, 351])
    def test_table_3_cifar10(self, batches: int) -> None:
        result = pretrain_rates("multistep", 200 * batches, 0.1, milestones=(0.45, 0.9))
        assert result == [0.1] * 90 * batches + [0.01] * 90 * batches + [0.001] * 20 * batches

    def test_table_3_cifar100(self) -> None:
        result = pretrain_rates("linear", 200, 0.1)
        np.testing.assert_allclose(result, np.linspace(0.1, 0, 201)[:-1])

    def test_table_3_maxvit(self) -> None:
        result = pretrain_rates(
            "multistep", 200, 0.2, warmup=0.1, milestones=(0.3, 0.6, 0.8), factor=0.1
        )
        expected = [0.2 * t / 20 for t in range(1, 21)]
        expected += [0.2] * 40 + [0.02] * 60 + [0.002] * 40 + [0.0002] * 40
        assert result == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize(
        ("steps", "warm", "drops"),
        [(300, 20, (100, 200)), (100, 7, (33, 67)), (50, 3, (17, 33)), (10, 1, (3, 7))],
    )
    def test_fractions_of_all_steps_are_rounded_to_the_nearest_step(
        self, steps: int, warm: int, drops: tuple[int, int]
    ) -> None:
        result = pretrain_rates("multistep", steps, 1.0, warmup=20 / 300, milestones=(1 / 3, 2 / 3))
        assert result.index(1.0) == warm - 1
        assert tuple(result.index(rate, warm) for rate in (0.1, 0.01)) == drops

    def test_half_an_epoch_of_gradual_pruning_is_rounded_up(self) -> None:
        """Steps after 1.5, 3, 4.5, 6 and 7.5 epochs."""
        assert list(ramp(0.9, 9, 5)) == [2, 3, 5, 6, 8]

    def test_half_a_step_is_rounded_up_in_decimals(self) -> None:
        """In floats 0.145 * 100 is 14.499999999999998."""
        result = pretrain_rates("multistep", 100, 1.0, warmup=0.065, milestones=(0.145, 0.29))
        assert [result.index(rate) for rate in (1.0, 0.1, 0.01)] == [6, 15, 29]

    @given(lengths, rates)
    def test_cosine_against_numpy(self, steps: int, peak: float) -> None:
        expected = peak * np.cos(np.pi / 2 * np.arange(steps) / steps) ** 2
        result = pretrain_rates("cosine", steps, peak)
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9 * peak)

    @pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "multistep"])
    @given(lengths, rates, st.floats(0, 1, exclude_max=True))
    def test_laws(self, kind: str, steps: int, peak: float, warmup: float) -> None:
        """Rise to the peak, then never rise again; always positive."""
        result = pretrain_rates(kind, steps, peak, warmup=warmup)
        top = int(np.argmax(result))
        assert len(result) == steps
        assert result[top] == pytest.approx(peak)
        assert min(result) > 0
        assert all(np.diff(result[: top + 1]) > 0)
        assert all(np.diff(result[top:]) <= 0)

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"kind": "step"}, "'step': use one of constant, linear, cosine, multistep"),
            ({"steps": 0}, "pretrain.epochs is 0"),
            ({"peak": 0.0}, "pretrain.learning_rate is 0.0"),
            ({"peak": float("nan")}, "pretrain.learning_rate is nan"),
            ({"warmup": 1.0}, "pretrain.warmup is 1.0"),
            ({"milestones": (0.9, 0.45)}, r"pretrain.milestones is \[0.9, 0.45\]"),
            ({"milestones": (0.5, 1.0)}, "pretrain.milestones"),
            ({"milestones": (90, 180)}, "pretrain.milestones"),
            ({"factor": 0.0}, "the factor of a milestone"),
        ],
    )
    def test_refusals(self, change: dict[str, object], named: str) -> None:
        arguments = {"kind": "multistep", "steps": 10, "peak": 0.1} | change
        with pytest.raises(UserError, match=named):
            pretrain_rates(**arguments)  # type: ignore[arg-type]
