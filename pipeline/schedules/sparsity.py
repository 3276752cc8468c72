"""Sparsity schedules: after each prune-retrain phase, and after each step of gradual pruning."""

from pipeline.errors import UserError
from pipeline.rounding import round_fraction


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
    ends = [round_fraction(step / (steps + 1), epochs) for step in range(1, steps + 1)]
    levels = [target * (1 - (1 - step / steps) ** 3) for step in range(1, steps)] + [target]
    return dict(zip(ends, levels, strict=True))


def _check_target(target: float) -> None:
    if not 0 <= target < 1:
        raise UserError(f"target_sparsity is {target}, but must be in [0, 1).")
