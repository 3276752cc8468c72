"""Dynamic pruning with feedback: pruned weights keep learning and may return (Lin et al., 2020)."""

from pipeline.plan import during
from pipeline.plan.work import Work


def plan(work: Work) -> None:
    """Train one network from scratch, and prune it meanwhile."""
    work.start("dpf")
    model = during.sparsify(work, "dpf")
    work.report(work.phases[-1], model)
