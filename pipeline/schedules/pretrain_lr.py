"""Learning-rate curves, one rate an optimiser step, as plain lists; and pretraining's schedules.

Steps count from 0. A warm-up of W steps is linear from 0: step i has rate peak * (i + 1) / W, so
step W - 1 has the peak. A decay over D steps has rate f(j / D) at its step j = 0, ..., D - 1: it
starts at the peak, and what it ends at (0, say) is the rate of the step after the last.
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
        kind: constant; linear or cosine (peak to 0 over what the warm-up leaves); multistep
            (peak * factor^k once k milestones are passed).
        steps: how many, at least 1.
        peak: the largest rate.
        warmup: fraction of all steps spent warming up, in [0, 1).
        milestones: multistep only; fractions of all steps, increasing, in (0, 1). With 200
            epochs, (0.45, 0.9) drops after epochs 90 and 180.
        factor: multistep only; what each milestone multiplies the rate by.

    Raises:
        UserError: an unknown kind, or a value out of its range.
    """
    check_choice("pretrain.schedule", kind, ("constant", "linear", "cosine", "multistep"))
    check(steps >= 1, "pretrain.epochs", steps, "at least one step")
    check(isfinite(peak) and peak > 0, "pretrain.learning_rate", peak, "a rate above 0")
    check(0 <= warmup < 1, "pretrain.warmup", warmup, "a fraction from 0 up to, not with, 1")
    rising = all(one < other for one, other in zip([0, *milestones], [*milestones, 1], strict=True))
    check(rising, "pretrain.milestones", list(milestones), "increasing fractions between 0 and 1")
    check(isfinite(factor) and factor > 0, "pretrain.factor", factor, "a factor above 0")
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


def swa_rates(rates: Sequence[float], start: int, level: float) -> list[float]:
    """Return ``rates`` up to step ``start``, and a constant level after half a cosine: SWA's rates.

    The anneal takes A steps, a tenth of all but no more than are left. It falls (or rises) from
    rates[start] towards the level, which all steps after it have.

    Args:
        rates: of every step of the schedule that is left at ``start``.
        start: a step, counted from 0.
        level: the constant rate, above 0.

    Raises:
        UserError: a level out of its range.

    Source: Izmailov et al. 2018, section 3.2 (a constant rate once averaging starts), annealed
        to as by torch.optim.swa_utils.SWALR.
    """
    check(isfinite(level) and level > 0, "swa.learning_rate", level, "a rate above 0")
    rest = len(rates) - start
    anneal = min(len(rates) // 10, rest)
    way = cosine(anneal, rates[start], level) if anneal else []
    return [*rates[:start], *way, *[level] * (rest - anneal)]


def warm_up(steps: int, peak: float) -> list[float]:
    """Return peak * (i + 1) / W for the W ``steps``: the last one has the peak."""
    return [peak * ((step + 1) / steps) for step in range(steps)]


def linear(steps: int, peak: float) -> list[float]:
    """Return peak * (1 - j / D) for the D ``steps``: 0 would be next."""
    return [peak * (1 - step / steps) for step in range(steps)]


def cosine(steps: int, peak: float, floor: float) -> list[float]:
    """Return half a cosine from peak over the D ``steps``: the floor would be next."""
    return [floor + (peak - floor) * (1 + cos(pi * step / steps)) / 2 for step in range(steps)]


def check(holds: bool, key: str, value: object, allowed: str) -> None:
    """Raise the UserError that names the key, its value and what is allowed, unless it holds."""
    if not holds:
        raise UserError(f"{key} is {value}: give {allowed}.")


def check_choice(key: str, value: str, allowed: Collection[str]) -> None:
    """Raise the UserError that lists what is allowed, unless ``value`` is among it."""
    if value not in allowed:
        raise UserError(f"{key} is {value!r}: use one of {', '.join(allowed)}.")
