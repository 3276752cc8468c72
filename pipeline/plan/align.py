"""The planner's word for weight alignment: one network's channels matched to another's."""

from pipeline.plan.ledger import join_name
from pipeline.plan.plan import artifact
from pipeline.plan.work import Planner
from pipeline.seeds import derive


def align(work: Planner, reference: str, run: str, phase: int, number: int) -> str:
    """Return run ``number`` with its channels in the order in which it is closest to another."""
    flags = {
        "data": artifact(work.data()),
        "reference": artifact(reference),
        "run": artifact(run),
        "seed": derive(work.seed, "align", phase, number),
    }
    name = join_name(work.method, f"p{phase}", f"run{number}")
    modules = work.learning_modules()
    return work.add(name, "align", flags, modules=modules, phase=phase, candidate=number)
