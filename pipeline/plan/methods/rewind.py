"""IMP with weight rewinding: kept weights go back to an early epoch (Frankle et al., 2020)."""

from pipeline.plan.planner import Planner
from pipeline.plan.rewinding import rewind, train_rest

LABEL = "IMP, rewound"
LOOK = ("sky", "<", "-.")


def plan(work: Planner) -> None:
    """Prune the trained network, rewind what is kept, and train it on to the end; repeat."""
    work.set_method("rewind")
    model = work.pretrain()
    for phase in work.phases:
        pruned = work.prune(model, phase)
        ticket = rewind(work, pruned, phase)
        model = train_rest(work, ticket, phase)
        work.report(phase, model)
