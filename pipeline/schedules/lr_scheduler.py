"""Retraining schedules as a learning-rate scheduler of PyTorch."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pipeline.errors import UserError
from pipeline.schedules.pretrain_lr import check, check_choice
from pipeline.schedules.retrain_lr import SCHEDULES, allr_peak, learning_rates

FROM_PEAK = ("LLR", "ALLR")  # made from the largest pretraining rate alone


class RetrainLR(LRScheduler):
    """The learning rates of `learning_rates`, one an optimiser step, equal in all parameter groups.

    Call ``step()`` after each step of the optimiser. After the last of the ``steps`` the last rate
    stays. ``state_dict`` has the rates too, so that a scheduler which loads it continues them.

    Args:
        optimizer: whose parameter groups get the rates.
        schedule: FT, LRW, SLR, CLR, LLR or ALLR.
        steps: of this retraining, at least 1.
        trace: eta, the pretraining rate of every step; for LLR and ALLR their peak is enough.
        pruning: for ALLR, the metrics of the pruning (norm_drop and pruned_fraction).
        pretrain_steps: for ALLR, T in T_rt / T; by default the length of the trace.
        peak: if given, the largest rate, which the schedule is scaled to.
        last_epoch: as of every scheduler of PyTorch.

    Raises:
        UserError: an unknown name, a value out of its range, or one that the schedule lacks; and
            a call of ``step()`` beyond the end.
    """

    def __init__(  # noqa: PLR0913
        self,
        optimizer: Optimizer,
        schedule: str = "ALLR",
        *,
        steps: int,
        trace: Sequence[float] | float,
        pruning: Mapping[str, Any] | None = None,
        pretrain_steps: int | None = None,
        peak: float | None = None,
        last_epoch: int = -1,
    ) -> None:
        check_choice("schedule", schedule, SCHEDULES)
        check(steps >= 1, "steps", steps, "at least 1")
        if isinstance(trace, int | float):
            check(schedule in FROM_PEAK, "trace", trace, f"a list of all rates with {schedule}")
            trace = [float(trace)]
        else:
            pretrain_steps = pretrain_steps or len(trace)
        check(len(trace) > 0, "trace", list(trace), "a rate or a list of rates")
        if schedule == "ALLR" and peak is None:
            peak = _allr_peak(max(trace), pruning, steps, pretrain_steps)
        self.rates = learning_rates(schedule, steps, trace, peak=peak)
        self.total_steps = steps  # accelerate reads it, as of OneCycleLR
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of the next step, once for each parameter group."""
        end = len(self.rates)
        if self.last_epoch > end:
            raise UserError(
                f"the schedule has {end} steps and is asked for one more: set steps to the length "
                "of the training."
            )
        rate = self.rates[min(self.last_epoch, end - 1)]
        return [rate for _ in self.optimizer.param_groups]


def _allr_peak(
    eta_max: float, pruning: Mapping[str, Any] | None, steps: int, pretrain_steps: int | None
) -> float:
    if pruning is None or pretrain_steps is None:
        raise UserError(
            "ALLR needs the metrics of prune and the length of pretraining: set pruning and "
            "pretrain_steps, or peak."
        )
    return allr_peak(
        eta_max, pruning["norm_drop"], pruning["pruned_fraction"], steps, pretrain_steps
    )
