"""Weight rewinding in the plan: the early network, the rewound one, and the rest of the training.

The rewind epoch k is `rewind.epoch` of params.yaml, or pretrain.epochs - retrain.epochs, so that a
phase trains as long as one of IMP. After k the learning rates are pretraining's own (LRW).
"""

from typing import Any

from pipeline.errors import UserError
from pipeline.plan.plan import artifact
from pipeline.plan.planner import Planner
from pipeline.plan.stage_adder import join_name


def rewind_epoch(work: Planner) -> int:
    """Return k, the epoch of pretraining to whose weights a pruned network goes back.

    Raises:
        UserError: pretraining has no epoch k that others follow.
    """
    total, epoch = work.settings.pretrain.epochs, work.settings.rewind.epoch
    if not total:
        raise UserError(
            f"pretrain.epochs is 0, but {work.method} goes back to an epoch of pretraining: train "
            "the dense network, or leave the method out"
        )
    if epoch is None:
        epoch = total - work.settings.retrain.epochs
        if epoch < 0:
            raise UserError(
                f"rewind.epoch is null, which is pretrain.epochs - retrain.epochs, here {epoch}, "
                f"but must be in [0, {total}): lower retrain.epochs, or set rewind.epoch"
            )
    if epoch >= total:
        raise UserError(
            f"rewind.epoch is {epoch}, but must be in [0, {total}), before the end of pretraining: "
            "lower it"
        )
    return epoch


def rewind(work: Planner, pruned: str, phase: int) -> str:
    """Return ``pruned`` with its kept weights as they were after the rewind epoch."""
    early = work.pretrain(to_epoch=rewind_epoch(work))
    flags = {"pruned": artifact(pruned), "early": artifact(early)}
    shared = work.of_dense(pruned)
    name = join_name("" if shared else work.lineage, f"p{phase}", "rewind")
    return work.add(name, "rewind", flags, phase=phase)


def train_rest(work: Planner, rewound: str, phase: int, candidate: int = 0, **more: Any) -> str:
    """Return the network ``rewound``, trained in the epochs after k at pretraining's rates.

    ``more`` flags are those of the stage, as of `Planner.retrain`.
    """
    epochs = work.settings.pretrain.epochs - rewind_epoch(work)
    return work.retrain(rewound, phase, candidate, epochs=epochs, schedule="LRW", **more)
