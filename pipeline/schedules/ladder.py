"""How sparse the model is after each prune-retrain phase."""

from pipeline.errors import UserError


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
    if not 0 <= target < 1:
        raise UserError(f"target_sparsity is {target}: give a fraction from 0 up to, not with, 1.")
    if phases < 1:
        raise UserError(f"phases is {phases}: give at least 1.")
    rate = 1 - (1 - target) ** (1 / phases)
    return [1 - (1 - rate) ** phase for phase in range(1, phases)] + [target]
