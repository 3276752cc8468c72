"""IMP-RePrune: m independent IMP runs, averaged at the end and pruned again (Yin et al., 2022)."""

from pipeline.plan.planner import Planner

LABEL = "IMP-RePrune"
LOOK = ("purple", "P", "-.", 1.3)
PAPER = {"prune_after_training": "IMP-RePrune"}


def plan(work: Planner) -> None:
    """Average the runs after the last phase; their masks differ, so prune the average once more."""
    work.set_method("imp_reprune", lineage="imp")  # run 0 is IMP itself
    runs = independent_runs(work)
    phase = work.settings.phases
    work.report(phase, work.reprune(runs, phase), candidates=runs)


def independent_runs(work: Planner) -> list[str]:
    """Return the last phase's networks of m runs, each pruned and retrained by itself."""
    runs = [work.pretrain()] * work.m
    for phase in work.phases:
        for run in range(work.m):
            pruned = work.prune(runs[run], phase, run=run)
            runs[run] = work.retrain(pruned, phase, candidate=run)
    return runs
