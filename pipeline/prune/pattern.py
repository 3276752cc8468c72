"""N:M patterns: of every M consecutive weights along the input channels, N are kept.

Read by the planner and the settings too, so this file does not import torch.
"""

import re
from dataclasses import dataclass
from itertools import count

from pipeline.errors import UserError

STRUCTURES = ("weights", "filters")

# Criterion and allocation of filters: the defaults, or what filters do.
FILTERS = (("magnitude", "global"), ("magnitude", "uniform"))


@dataclass(frozen=True)
class Pattern:
    """A pattern N:M, 1 <= N < M, printed as in ``2:4``."""

    n: int
    m: int

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def sparsity(self) -> float:
        """The sparsity of each layer that has the pattern: 1 - N/M."""
        return (self.m - self.n) / self.m

    @property
    def most_phases(self) -> int:
        """The largest number of phases of which each prunes a weight of every group: M - N."""
        return self.m - self.n

    def levels(self, phases: int) -> list["Pattern"]:
        """Return the pattern N_p:M after phase p = 1, ..., P.

            N_p = min(N_(p-1) - 1, max(ceil(M (N/M)^(p/P)), N + P - p))        N_0 = M, so N_P = N

        Each phase keeps the same share of the rest, as in `pipeline.schedules.sparsity.sparsities`,
        rounded up. The bounds let every phase prune a weight of each group. In two phases 2:4 is
        3:4, 2:4, and 1:4 is 2:4, 1:4.

        Args:
            phases: P, in [1, M - N].
        """
        levels, kept = [], self.m
        for phase in range(1, phases + 1):
            power = self.m ** (phases - phase) * self.n**phase  # (M (N/M)^(p/P))^P, an integer
            share = next(k for k in count(1) if k**phases >= power)
            kept = min(kept - 1, max(share, self.n + phases - phase))
            levels.append(Pattern(kept, self.m))
        return levels


def parse(structure: object) -> Pattern | None:
    """Return the pattern that a value of ``prune.structure`` names, or None if it names none."""
    if not isinstance(structure, str):
        return None
    digits = re.fullmatch(r"([1-9][0-9]*):([1-9][0-9]*)", structure)
    if digits is None:
        return None
    pattern = Pattern(*map(int, digits.groups()))
    return pattern if pattern.n < pattern.m else None


def valid_structure(value: object) -> object:
    """Return ``value``, if it is one of ``prune.structure``.

    Raises:
        ValueError: says which values exist.
    """
    if value not in STRUCTURES and parse(value) is None:
        raise ValueError(
            "'weights' or 'filters', or N:M in quotes with 1 <= N < M, such as \"2:4\""
        )
    return value


def check_ranking(structure: str, criterion: str, allocation: str, keys: str = "") -> None:
    """Refuse a criterion or an allocation that ``structure`` would not use.

    Args:
        structure: a valid one.
        criterion: as in params.yaml.
        allocation: as in params.yaml.
        keys: what the names of the three begin with in a message, such as "prune.".

    Raises:
        UserError: the structure has a ranking of its own.
    """
    if structure == "filters" and (criterion, allocation) not in FILTERS:
        raise UserError(
            f"{keys}structure is filters, which are ranked by L2 norm in each layer, but "
            f"{keys}criterion is {criterion} and {keys}allocation is {allocation}: set them to "
            "magnitude and global"
        )
    if parse(structure) and allocation != "global":
        raise UserError(
            f"{keys}structure is {structure}, which gives every layer the same sparsity, but "
            f"{keys}allocation is {allocation}: set it to global"
        )
