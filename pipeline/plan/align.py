"""The planner's word for weight alignment: one network's channels matched to another's."""

from pipeline.plan.ledger import joined
from pipeline.plan.nodes import artifact
from pipeline.plan.work import Work
from pipeline.seeds import derive


def align(work: Work, reference: str, run: str, phase: int, number: int) -> str:
    """Return run ``number`` with its channels in the order in which it is closest to another."""
    flags = {
        "data": artifact(work.data()),
        "reference": artifact(reference),
        "run": artifact(run),
        "seed": derive(work.seed, "align", phase, number),
    }
    name = joined(work.method, f"p{phase}", f"run{number}")
    modules = work.learning_modules()
    return work.add(name, "align", flags, modules=modules, phase=phase, candidate=number)
