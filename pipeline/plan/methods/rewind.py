"""IMP with weight rewinding: kept weights go back to an early epoch (Frankle et al., 2020)."""

from pipeline.plan.planner import Planner
from pipeline.plan.rewinding import rewind, train_rest

LABEL = "IMP, rewound"
LOOK = ("sky", "<", "-.")


def plan(work: Planner) -> None:
    """Prune the trained network, rewind what is kept, and train it on to the end; repeat."""
    work.set_method("rewind")
    for phase, model in enumerate(tickets(work), start=1):
        work.report(phase, model)


def tickets(work: Planner) -> list[str]:
    """Return the trained network of every phase."""
    models = [work.pretrain()]
    for phase in work.phases:
        pruned = work.prune(models[-1], phase)
        rewound = rewind(work, pruned, phase)
        models.append(train_rest(work, rewound, phase))
    return models[1:]
