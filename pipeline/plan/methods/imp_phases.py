"""IMP in m times as many phases: SMS's epochs in one copy, pruned in smaller steps (Table 16)."""

from pipeline.plan.planner import Planner

LABEL = "IMP with {m}\N{MULTIPLICATION SIGN} phases"
LOOK = ("black", "<", "--")


def plan(work: Planner) -> None:
    """Reach the same sparsity in m times as many phases, each retrained as long as one of IMP."""
    work.set_method("imp_phases", lineage="imp")
    phases = work.m * work.settings.phases
    more = work.with_settings(f"phases{phases}", {"phases": phases})
    more.set_method("imp_phases", lineage="imp")
    model = more.pretrain()
    for phase in more.phases:
        pruned = more.prune(model, phase, run=0)
        model = more.retrain(pruned, phase)
    work.report(work.settings.phases, model)
