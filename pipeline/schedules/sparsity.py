"""Sparsity schedules: of prune-retrain phases, of gradual pruning, and of alternating phases."""

from fractions import Fraction

from pipeline.errors import UserError
from pipeline.rounding import round_fraction, round_half_up


def sparsities(target: float, phases: int) -> list[float]:
    """Return the sparsity after phase 1, 2, ..., P: every phase prunes the same share of the rest.

        q = 1 - (1 - s)^(1/P)        s_t = 1 - (1 - q)^t

    98 % in three phases is 72.86, 92.63, 98.0 %. The last is exactly the target.

    Args:
        target: s, the sparsity after the last phase, a fraction in [0, 1).
        phases: P, at least 1.

    Raises:
        UserError: a value out of its range.

    Source: Sparse Model Soups, section 3 (Table 1); Zimmer et al. 2023.
    """
    _check_target(target)
    if phases < 1:
        raise UserError(f"phases is {phases}, but must be at least 1.")
    rate = 1 - (1 - target) ** (1 / phases)
    return [1 - (1 - rate) ** phase for phase in range(1, phases)] + [target]


def ramp(target: float, epochs: int, steps: int) -> dict[int, float]:
    """Return the sparsity after each step of gradual pruning, by the epoch that ends with the step.

        s(t) = s * (1 - (1 - t / T_p)^3)        at t = T_p / K, 2 T_p / K, ..., T_p

    K pruning steps cut the training into K + 1 intervals of equal length, to the nearest epoch:
    the last interval trains the network at its final sparsity, which is exactly the target.

    Args:
        target: s, the sparsity at the end, a fraction in [0, 1).
        epochs: of the whole training.
        steps: K, at least 1 and fewer than the epochs.

    Raises:
        UserError: a value out of its range.

    Source: Zhu & Gupta 2017, equation 1, with t0 = 0 and s_i = 0; Sparse Model Soups, section 3.3.
    """
    _check_target(target)
    if not 1 <= steps < epochs:
        raise UserError(
            f"sparsify.pruning_steps is {steps}, but must be from 1 to one less than the {epochs} "
            "epochs: lower it, or train longer."
        )
    ends = [round_half_up(Fraction(step * epochs, steps + 1)) for step in range(1, steps + 1)]
    levels = [target * (1 - (1 - step / steps) ** 3) for step in range(1, steps)] + [target]
    return dict(zip(ends, levels, strict=True))


def alternation(epochs: int, warmup: float, phase: int, last: float) -> dict[int, bool]:
    """Return the epochs after which AC/DC compresses (True) and decompresses (False) the network.

        dense W | compressed p | dense p | ... | compressed p | dense p + rest | compressed L

    W and L are the shares ``warmup`` and ``last`` of the epochs. Between them there are as many
    pairs of phases as fit; the epochs that are left make the last dense phase longer.

    Args:
        epochs: of the whole training.
        warmup: the share of the dense warm-up; at least one epoch.
        phase: p, the epochs of a phase; 0 is a twentieth of the training, at least one epoch.
        last: the share of the last compressed phase; at least one epoch.

    Raises:
        UserError: not even one pair of phases fits.

    Source: Peste et al. 2021, Algorithm 1 and section 4. The rule gives the schedules of the
        authors' configurations, of 100, 150 and 200 epochs (github.com/IST-DASLab/ACDC).
    """
    phase = phase or whole_epochs(0.05, epochs)
    start, end = whole_epochs(warmup, epochs), epochs - whole_epochs(last, epochs)
    pairs = (end - start) // (2 * phase)
    if pairs < 1:
        raise UserError(
            f"sparsify.acdc_phase is {phase}, and a compressed and a dense phase take twice as "
            f"many epochs, but {epochs} epochs leave {max(0, end - start)} between the warm-up and "
            "the last phase: lower sparsify.acdc_phase, acdc_warmup or acdc_last, or train longer."
        )
    steps = {start + number * phase: number % 2 == 0 for number in range(2 * pairs)}
    return steps | {end: True}


def whole_epochs(share: float, epochs: int) -> int:
    """Return ``share`` of the epochs to the nearest epoch, at least one."""
    return max(1, round_fraction(share, epochs))


def _check_target(target: float) -> None:
    if not 0 <= target < 1:
        raise UserError(f"target_sparsity is {target}, but must be in [0, 1).")
