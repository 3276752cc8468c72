"""GMP whose intervals between late pruning steps train m copies, averaged (section 3.3)."""

from pipeline.plan import during
from pipeline.plan.nodes import artifact
from pipeline.plan.work import Work


def plan(work: Work) -> None:
    """Average the copies, and prune the soup by magnitude in one ranking."""

    def prune(copies: list[str], phase: int, sparsity: float) -> str:
        flags = {
            "parent": artifact(work.merge(copies, phase - 1, "uniform")),
            "phase": phase,
            "sparsity": sparsity,
            "criterion": "magnitude",
            "allocation": "global",
        }
        rules = ("pipeline.prune.criteria.magnitude", "pipeline.prune.allocations.global_")
        modules = (*rules, *work.network_modules())
        return work.add(f"gmp_sms-p{phase}-prune", "prune", flags, modules=modules, phase=phase)

    work.start("gmp_sms")
    during.sms(work, "gmp", prune)
