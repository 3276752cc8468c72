"""Learning-compression: a growing penalty on small weights (Carreira-Perpinan et al., 2018)."""

from pipeline.plan import during
from pipeline.plan.work import Work

LABEL = "LC"


def plan(work: Work) -> None:
    """Train one network, and prune it in the end."""
    work.start("lc")
    model = during.sparsify(work, "lc", from_dense=work.settings.during.from_dense)
    work.report(work.phases[-1], model)
