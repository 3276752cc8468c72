"""Sparse Model Soups: average m retrained copies, and prune the average next (Figure 2)."""

from pipeline.plan.planner import Planner
from pipeline.soup.build import label

LABEL = "SMS {variant}"
NAMES = {
    "model_stock": "Model Stock",
    "repair": "REPAIR",
    "wise": "WiSE",
}  # as their papers write them
LOOK = {
    "uniform": ("blue", "o", "-"),
    "greedy": ("orange", "s", "-"),
    "learned": ("sky", "X", "-", 1.2),
    "distilled": ("green", "h", "-", 1.2),
    "model_stock": ("purple", "<", "-"),
    "repair": ("purple", "*", "-", 1.4),
    "wise": ("vermilion", "*", "-", 1.4),
}
PAPER = {
    "uniform": {"prune_after_training": "SMS uniform", "subgroup_recall": "SMS"},
    "greedy": {"prune_after_training": "SMS greedy"},
}
BASELINES = ("imp_mx", "imp", "imp_reprune")


def plan(work: Planner) -> None:
    """Retrain m copies under one mask, merge them, and start the next phase from the soup."""
    for rule in work.settings.merge:
        work.set_method(f"sms_{label(rule)}")
        soup = work.pretrain()
        for phase in work.phases:
            pruned = work.prune(soup, phase)
            candidates = [work.retrain(pruned, phase, candidate=j) for j in range(work.m)]
            soup = work.merge(candidates, phase, rule)
            work.report(phase, soup, candidates)
