"""DPF whose intervals between late pruning steps train m copies, averaged (section 3.3)."""

from pipeline.plan import during
from pipeline.plan.nodes import artifact
from pipeline.plan.work import Work


def plan(work: Work) -> None:
    """Average the dense weights behind the copies' common mask, and mask the mean anew."""

    def prune(copies: list[str], phase: int, sparsity: float) -> str:
        flags = {
            "copies": [artifact(copy) for copy in copies],
            "phase": phase,
            "sparsity": sparsity,
        }
        rules = ("pipeline.prune.criteria.magnitude", "pipeline.prune.allocations.global_")
        modules = (*rules, *work.network_modules())
        return work.add(f"dpf_sms-p{phase}-prune", "dpf_prune", flags, modules=modules, phase=phase)

    work.start("dpf_sms")
    during.sms(work, "dpf", prune)
