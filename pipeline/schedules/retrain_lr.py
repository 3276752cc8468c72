"""Retraining schedules: the learning rates of a prune-retrain phase, from those of pretraining.

Steps, warm-ups and decays are counted as in pipeline/schedules/pretrain_lr.py; eta is the
recorded pretraining trace, one rate a step.
"""

from collections.abc import Callable, Sequence
from math import isfinite, sqrt

from pipeline.schedules.pretrain_lr import (
    check,
    check_choice,
    cosine,
    linear,
    pretrain_rates,
    warm_up,
)

__all__ = ["SCHEDULES", "allr_peak", "learning_rates", "pretrain_rates"]


def learning_rates(
    name: str, steps: int, trace: Sequence[float], *, peak: float | None = None
) -> list[float]:
    """Return the learning rate of every step of one retraining.

    SLR, CLR, LLR and ALLR warm up to their first rate in W = floor(steps / 10) steps. ALLR's peak
    is the value of `allr_peak`.

        FT    eta_T, the last rate of the trace, throughout       Han et al. 2015
        LRW   the last rates of the trace, one a step             Renda et al. 2020
        SLR   warm-up, the whole trace resampled to the rest      Le & Hua 2021
        CLR   warm-up, cosine from max(eta) to min(eta)           Le & Hua 2021
        LLR   warm-up, linear from max(eta) to 0                  Zimmer et al. 2023
        ALLR  LLR from a peak by lost norm and length             Zimmer et al. 2023

    Args:
        name: one of the six.
        steps: retraining steps, at least 1.
        trace: eta, the recorded rate of every pretraining step.
        peak: if given, the schedule is scaled so that its largest rate is this one.

    Raises:
        UserError: an unknown name, no steps, an invalid trace, LRW with more steps than the trace,
            ALLR without a peak, or a peak that is not above 0.
    """
    check_choice("retrain.schedule", name, SCHEDULES)
    check(steps >= 1, "retrain.epochs", steps, "at least 1")
    valid = all(isfinite(rate) and rate >= 0 for rate in trace) and any(trace)
    check(valid, "the learning-rate trace", "invalid", "finite, not negative, and not all 0")
    if name == "ALLR":
        check(peak is not None, "the peak of ALLR", None, "the value of allr_peak")
    rates = SCHEDULES[name](steps, trace)
    check(any(rates), "retrain.schedule", f"{name}, whose rates would all be 0", "another one")
    if peak is None:
        return rates
    check(isfinite(peak) and peak > 0, "retrain.learning_rate", peak, "above 0")
    largest = max(rates)
    return [peak * (rate / largest) for rate in rates]


def allr_peak(
    eta_max: float,
    norm_drop: float,
    pruned_fraction: float,
    retrain_epochs: float,
    pretrain_epochs: float,
) -> float:
    """Return ALLR's first rate, from the norm lost by pruning and the length of the retraining.

        clip(eta_max * r / sqrt(q), eta_max * min(T_rt / T, 1), eta_max)

    Args:
        eta_max: the largest pretraining rate.
        norm_drop: r = sqrt(| ||W||^2 - ||W'||^2 |) / ||W|| over all parameters, in [0, 1].
        pruned_fraction: q, fraction of the remaining weights pruned in this phase, in [0, 1]; if
            nothing was pruned, the result is the lower bound.
        retrain_epochs: T_rt, this candidate's.
        pretrain_epochs: T; 0 (downloaded weights) counts as T_rt / T >= 1, so that ALLR is LLR.

    Source: Zimmer et al. 2023, section 3; Sparse Model Soups, appendix A.2.
    """
    drop = norm_drop / sqrt(pruned_fraction) if pruned_fraction else 0.0
    time = min(retrain_epochs / pretrain_epochs, 1.0) if pretrain_epochs else 1.0
    return eta_max * min(max(drop, time), 1.0)


def _fine_tuning(steps: int, trace: Sequence[float]) -> list[float]:
    return [trace[-1]] * steps


def _rewinding(steps: int, trace: Sequence[float]) -> list[float]:
    check(
        steps <= len(trace),
        "retrain.epochs",
        f"{steps} steps",
        f"at most pretraining's {len(trace)} with LRW: lower it, or choose another "
        "retrain.schedule",
    )
    return list(trace[-steps:])


def _scaled_restarting(steps: int, trace: Sequence[float]) -> list[float]:
    warm = steps // 10
    rest = steps - warm
    return warm_up(warm, trace[0]) + [trace[step * len(trace) // rest] for step in range(rest)]


def _cyclic_restarting(steps: int, trace: Sequence[float]) -> list[float]:
    warm = steps // 10
    return warm_up(warm, max(trace)) + cosine(steps - warm, max(trace), min(trace))


def _linear_restarting(steps: int, trace: Sequence[float]) -> list[float]:
    warm = steps // 10
    return warm_up(warm, max(trace)) + linear(steps - warm, max(trace))


SCHEDULES: dict[str, Callable[[int, Sequence[float]], list[float]]] = {
    "FT": _fine_tuning,
    "LRW": _rewinding,
    "SLR": _scaled_restarting,
    "CLR": _cyclic_restarting,
    "LLR": _linear_restarting,
    "ALLR": _linear_restarting,
}
