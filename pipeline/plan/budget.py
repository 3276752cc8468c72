"""BIMP's budget: dense training and all phases together take the epochs of one training."""

from pipeline.errors import UserError
from pipeline.plan.work import Planner
from pipeline.rounding import round_fraction


def bimp(work: Planner) -> Planner:
    """Return the vocabulary in which dense training and all phases together take the budget.

    Every phase has as many epochs; what does not divide is the dense network's.

    Raises:
        UserError: too few epochs.

    Source: Zimmer et al. 2023 (BIMP), whose retraining schedule is ALLR.
    """
    sparsify = work.settings.sparsify
    total, cycles = sparsify.epochs or work.settings.pretrain.epochs, len(work.phases)
    epochs = (total - max(1, round_fraction(sparsify.dense_share, total))) // cycles
    if epochs < 1:
        raise UserError(
            f"sparsify.dense_share leaves no epoch of {total} for each of {cycles} phases: lower "
            "it, or raise sparsify.epochs."
        )
    dense = total - cycles * epochs
    values = {"pretrain.epochs": dense, "retrain.epochs": epochs, "retrain.schedule": "ALLR"}
    return work.with_settings(f"bimp{dense}", values)
