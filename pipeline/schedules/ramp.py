"""How sparse the model is while gradual pruning trains it: a cubic ramp, climbed in equal steps."""

from pipeline.errors import UserError
from pipeline.rounding import round_fraction


def ramp(target: float, epochs: int, steps: int) -> dict[int, float]:
    """Return the sparsity after each pruning step, by the epoch at whose end it is taken.

        s(t) = s * (1 - (1 - t / T_p)^3)        at t = T_p / K, 2 T_p / K, ..., T_p

    K pruning steps cut the training into K + 1 intervals of equal length, to the nearest epoch:
    the last interval trains the network at its final sparsity, which is exactly the target.

    Args:
        target: s, the sparsity in the end, a fraction in [0, 1).
        epochs: of the whole training.
        steps: K, at least 1 and fewer than the epochs.

    Raises:
        UserError: a value out of its range.

    Source: Zhu & Gupta 2017, equation 1, with t0 = 0 and s_i = 0; Sparse Model Soups, section 3.3.
    """
    if not 0 <= target < 1:
        raise UserError(f"target_sparsity is {target}: give a fraction from 0 up to, not with, 1.")
    if not 1 <= steps < epochs:
        raise UserError(
            f"sparsify.pruning_steps is {steps}, but must be from 1 to one less than the {epochs} "
            "epochs: lower it, or train longer."
        )
    ends = [round_fraction(step / (steps + 1), epochs) for step in range(1, steps + 1)]
    levels = [target * (1 - (1 - step / steps) ** 3) for step in range(1, steps)] + [target]
    return dict(zip(ends, levels, strict=True))
