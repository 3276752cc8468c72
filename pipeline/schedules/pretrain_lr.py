"""Pretraining schedules, and the curves they are made of: lists with one rate an optimiser step.

Steps count from 0. A warm-up of W steps is linear from 0: step i has rate peak * (i + 1) / W, so
step W - 1 has the peak. A decay over D steps has rate f(j / D) at its step j = 0, ..., D - 1: it
starts at the peak, and its final value f(1) would be the rate of step D.
"""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from math import cos, isfinite, pi

from pipeline.errors import UserError
from pipeline.rounding import exact, round_fraction


def pretrain_rates(
    kind: str,
    steps: int,
    peak: float,
    *,
    warmup: float = 0.0,
    milestones: Sequence[float] = (),
    factor: float = 0.1,
) -> list[float]:
    """Return the learning rate of every pretraining step.

    Args:
        kind: constant; linear or cosine (peak to 0 after the warm-up); multistep
            (peak * factor^k once k milestones are passed).
        steps: of the training, at least 1.
        peak: the largest rate.
        warmup: fraction of all steps spent warming up, in [0, 1).
        milestones: multistep only; fractions of all steps, increasing, in (0, 1). With 200
            epochs, (0.45, 0.9) drops after epochs 90 and 180.
        factor: multistep only; of the rate at each milestone.

    Raises:
        UserError: an unknown kind, or a value out of its range.
    """
    _check(kind, steps, peak, warmup, milestones, factor)
    warm = round_fraction(warmup, steps)
    rest = steps - warm
    if kind == "constant":
        decay = [peak] * rest
    elif kind == "linear":
        decay = linear(rest, peak)
    elif kind == "cosine":
        decay = cosine(rest, peak, 0.0)
    else:
        drops = [round_fraction(milestone, steps) for milestone in milestones]
        # In decimals, so that 0.1 dropped by 0.1 is 0.01 and not 0.010000000000000002.
        levels = [float(exact(peak) * exact(factor) ** k) for k in range(len(drops) + 1)]
        decay = [levels[bisect_right(drops, step)] for step in range(warm, steps)]
    return warm_up(warm, peak) + decay


def _check(
    kind: str,
    steps: int,
    peak: float,
    warmup: float,
    milestones: Sequence[float],
    factor: float,
) -> None:
    check_choice("pretrain.schedule", kind, ("constant", "linear", "cosine", "multistep"))
    check(steps >= 1, "pretrain.epochs", steps, "at least 1")
    check(isfinite(peak) and peak > 0, "pretrain.learning_rate", peak, "above 0")
    check(0 <= warmup < 1, "pretrain.warmup", warmup, "in [0, 1)")
    rising = all(one < other for one, other in zip([0, *milestones], [*milestones, 1], strict=True))
    check(rising, "pretrain.milestones", list(milestones), "increasing fractions in (0, 1)")
    check(isfinite(factor) and factor > 0, "the factor of a milestone", factor, "above 0")


def swa_rates(rates: Sequence[float], start: int, level: float) -> list[float]:
    """Return SWA's rates: ``rates`` up to step ``start``, half a cosine, then a constant level.

    The cosine takes a tenth of all steps, but no more than are left. It falls (or rises) from
    rates[start] towards the level, the rate of all steps after it.

    Args:
        rates: of every step of the schedule.
        start: a step, counted from 0.
        level: the constant rate, above 0.

    Raises:
        UserError: a level out of its range.

    Source: Izmailov et al. 2018, section 3.2 (a constant rate once averaging starts); the annealing
        is that of torch.optim.swa_utils.SWALR.
    """
    check(isfinite(level) and level > 0, "swa.learning_rate", level, "above 0")
    rest = len(rates) - start
    anneal = min(len(rates) // 10, rest)
    annealed = cosine(anneal, rates[start], level) if anneal else []
    return [*rates[:start], *annealed, *[level] * (rest - anneal)]


def warm_up(steps: int, peak: float) -> list[float]:
    """Return peak * (i + 1) / W for the W ``steps``: the last one has the peak."""
    return [peak * ((step + 1) / steps) for step in range(steps)]


def linear(steps: int, peak: float) -> list[float]:
    """Return peak * (1 - j / D) for the D ``steps``: the next would be 0."""
    return [peak * (1 - step / steps) for step in range(steps)]


def cosine(steps: int, peak: float, floor: float) -> list[float]:
    """Return half a cosine from peak over the D ``steps``: the next would be the floor."""
    return [floor + (peak - floor) * (1 + cos(pi * step / steps)) / 2 for step in range(steps)]


def check(holds: bool, key: str, value: object, allowed: str) -> None:
    """Raise a UserError with the key, its value and the allowed values, unless it ``holds``."""
    if not holds:
        raise UserError(f"{key} is {value}, but must be {allowed}.")


def check_choice(key: str, value: str, allowed: Collection[str]) -> None:
    """Raise a UserError that lists the ``allowed`` values, unless ``value`` is one of them."""
    if value not in allowed:
        raise UserError(f"{key} is {value!r}: use one of {', '.join(allowed)}.")
