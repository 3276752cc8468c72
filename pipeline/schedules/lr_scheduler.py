"""Retraining schedules as a learning-rate scheduler of PyTorch."""

from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Integral, Real
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
        pretrain_steps: for ALLR, T in T_rt / T, at least 1; by default the length of the trace.
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
        steps, eta = _count("steps", steps), _rates(trace)
        if isinstance(trace, Real):
            check(schedule in FROM_PEAK, "trace", trace, f"a list of all rates with {schedule}")
        elif pretrain_steps is None:
            pretrain_steps = len(eta)
        if schedule == "LRW":
            check(steps <= len(eta), "steps", steps, f"at most the trace's {len(eta)} with LRW")
        if peak is not None:
            check(_is_number(peak) and peak > 0, "peak", peak, "a number above 0")
        elif schedule == "ALLR":
            peak = _allr_peak(max(eta), pruning, steps, pretrain_steps)
        self.rates = learning_rates(schedule, steps, eta, peak=peak)
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
    length = _count("pretrain_steps", pretrain_steps)
    try:
        lost = {key: float(pruning[key]) for key in ("norm_drop", "pruned_fraction")}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            "pruning lacks the numbers norm_drop and pruned_fraction: pass the metrics that prune "
            "returned."
        ) from error
    return allr_peak(eta_max, **lost, retrain_epochs=steps, pretrain_epochs=length)


def _count(key: str, value: Any) -> int:
    """Return a number of steps."""
    whole = isinstance(value, Integral) and int(value) >= 1
    check(whole, key, value, "an integer, at least 1")
    return int(value)


def _rates(trace: Any) -> list[float]:
    """Return the rates of a trace, which may also be one rate."""
    try:
        rates = [float(rate) for rate in ([trace] if isinstance(trace, Real) else trace)]
    except (TypeError, ValueError):
        rates = []
    check(len(rates) > 0, "trace", trace, "a rate or a list of rates")
    return rates


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and isfinite(value)
