"""UniformSoup: the mean of all candidates (Wortsman et al., 2022a)."""

from collections.abc import Sequence

from pipeline.averaging import check, mean
from pipeline.soup.base import Soup
from pipeline.storage.checkpoint import Checkpoint


def merge(candidates: Sequence[Checkpoint]) -> Soup:
    """Return the UniformSoup, the mean of all candidates under their common mask.

        theta = (theta_1 + ... + theta_m) / m

    Raises:
        UserError: no candidate, or candidates with other keys, shapes, dtypes or masks.

    Source: Sparse Model Soups, section 2.2; Wortsman et al. 2022a.
    """
    check(candidates)
    m = len(candidates)
    return Soup(average(candidates), (1 / m,) * m, f"all {m} candidates, each alike")


def average(candidates: Sequence[Checkpoint]) -> Checkpoint:
    """Return the mean of candidates, which `check` has accepted."""
    first = candidates[0]
    return Checkpoint(mean([each.state for each in candidates]), first.masks, first.meta)
