"""Distilled soup: the convex combination of least distillation loss (the paper, appendix A.2)."""

from collections.abc import Sequence

from pipeline.soup.base import Objective, Soup
from pipeline.soup.learned import minimise
from pipeline.storage.checkpoint import Checkpoint


def merge(candidates: Sequence[Checkpoint], *, distillation: Objective) -> Soup:
    """Return the soup whose coefficients minimise the distillation loss against the dense model.

        L = -(1/N) sum_n sum_k p_nk log softmax(f_theta(x_n))_k,   p = softmax(f_dense(x))

    over the validation images, without their labels; otherwise as `learned.merge`.

    Raises:
        UserError: as `uniform.merge`.

    Source: Sparse Model Soups, appendix A.2; Hinton et al. 2015 (at temperature 1).
    """
    return minimise(candidates, distillation, "distillation loss")
