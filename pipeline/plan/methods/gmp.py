"""Gradual magnitude pruning: prune more along a cubic ramp while training (Zhu & Gupta, 2017)."""

from pipeline.plan import during
from pipeline.plan.work import Work


def plan(work: Work) -> None:
    """Train one network from scratch, and prune it meanwhile."""
    work.start("gmp")
    model = during.sparsify(work, "gmp")
    work.report(work.phases[-1], model)
