"""Sparse Model Soups: average m retrained copies, and prune the average next (Figure 2)."""

from pipeline.plan.work import Work


def plan(work: Work) -> None:
    """Retrain m copies under one mask, merge them, and start the next phase from the soup."""
    for rule in work.settings.merge:
        work.start(f"sms_{rule}")
        soup = work.pretrain()
        for phase in work.phases:
            pruned = work.prune(soup, phase)
            candidates = [work.retrain(pruned, phase, candidate=j) for j in range(work.m)]
            soup = work.merge(candidates, phase, rule)
            work.report(phase, soup, candidates)
