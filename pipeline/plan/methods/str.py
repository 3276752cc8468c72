"""A learned soft threshold a layer, sparsity as it comes (Kusupati et al., 2020)."""

from pipeline.plan import during
from pipeline.plan.work import Work

LABEL = "STR"


def plan(work: Work) -> None:
    """Train one network, whose sparsity is reported and not asked for."""
    work.start("str")
    model = during.sparsify(work, "str")
    work.report(work.phases[-1], model)
