"""The vocabulary of pruning during training: one training, or one that ends in SMS."""

from collections.abc import Callable
from typing import Any

from pipeline.errors import UserError
from pipeline.plan.plan import artifact
from pipeline.plan.work import Planner
from pipeline.rounding import exact
from pipeline.schedules.ramp import ramp
from pipeline.seeds import derive
from pipeline.sparsify.config import options

Interval = tuple[int, int, float]  # from an epoch to another, at a sparsity


def budget(work: Planner) -> int:
    """Return the epochs of one training.

    Raises:
        UserError: there are none.
    """
    epochs = work.settings.sparsify.epochs or work.settings.pretrain.epochs
    if not epochs:
        raise UserError(
            f"pretrain.epochs is 0 and sparsify.epochs null, but {work.method} trains: set one"
        )
    return epochs


def sparsify(work: Planner, method: str, *, from_dense: bool = False) -> str:
    """Return the network that ``method`` trains and prunes, at random or from the dense one."""
    levels(work, method)  # refuses what cannot be
    parent = {"parent": artifact(work.pretrain())} if from_dense else {}
    seed = derive(work.seed, "pretrain")  # the dense network's weights at random, and its batches
    last = work.phases[-1]
    flags = {**parent, **_flags(work, method, seed, last), **_options(work, method)}
    return _add(work, f"{work.method}-p{last}", method, flags, phase=last)


def alone(method: str, *, may_start_dense: bool = False) -> Callable[[Planner], None]:
    """Return the plan of one training by ``method``, measured as the last phase's result.

    It is from scratch; some methods start from the dense network where sparsify.from_dense says so.
    """

    def plan(work: Planner) -> None:
        work.set_method(method)
        from_dense = may_start_dense and work.settings.sparsify.from_dense
        work.report(work.phases[-1], sparsify(work, method, from_dense=from_dense))

    return plan


def sms(work: Planner, method: str) -> None:
    """Make every interval between two pruning steps a phase of SMS, once its time has come.

    One network is trained up to there. At every pruning step the copies of the interval before are
    averaged, with their momentum, and the average is pruned; the last average is the result. Copy 0
    draws on from the training's own random streams, so that one copy is the method alone, bit for
    bit; the others have streams of their own.

    Source: Sparse Model Soups, section 3.3.
    """
    if work.settings.retrain.vary != "seed":
        raise UserError(
            f"retrain.vary is {work.settings.retrain.vary}, but the copies of {work.method} share "
            "one training and differ by seed: set it to seed, or take the method out of the list."
        )
    intervals = phases(work, method)
    options = _options(work, method)
    start = {**_flags(work, method, derive(work.seed, "pretrain"), 0), **options}
    first = start | {"to_epoch": intervals[0][0]}
    copies = [_add(work, f"{work.method}-p0", method, first, phase=0)]
    for phase, (begin, end, sparsity) in enumerate(intervals, start=1):
        pruned = artifact(_prune(work, copies, phase, sparsity))
        part = {"parent": pruned, "from_epoch": begin, "to_epoch": end, **options}
        copies = [_copy(work, method, part, phase, number) for number in range(work.m)]
    soup = work.merge(copies, phase, "uniform")
    work.report(work.phases[-1], soup, copies)


def levels(work: Planner, method: str) -> dict[int, float]:
    """Return the ramp of ``method``, by epoch; empty for a method that has none.

    Raises:
        UserError: whole filters are to be pruned, which is after training only.
    """
    if work.settings.prune.structure == "filters":
        raise UserError(
            f"prune.structure is filters, but {work.method} prunes single weights while it trains: "
            "set it to weights, or take the method out of the list."
        )
    if "pruning_steps" not in [option.name for option in options(method)]:
        return {}
    own = work.settings
    return ramp(own.target_sparsity, budget(work), own.sparsify.pruning_steps)


def phases(work: Planner, method: str) -> list[Interval]:
    """Return the intervals after the pruning steps that come once copies may be made."""
    found, epochs, since = levels(work, method), budget(work), work.settings.sparsify.sms_start
    ends = [*list(found)[1:], epochs]
    intervals = zip(found, ends, found.values(), strict=True)
    late = [interval for interval in intervals if interval[0] >= exact(since) * epochs]
    if not late:
        raise UserError(
            f"sparsify.sms_start is {since:g}, but the last pruning step is after epoch "
            f"{max(found)} of {epochs}: lower it, or raise sparsify.pruning_steps."
        )
    return late


def _prune(work: Planner, copies: list[str], phase: int, sparsity: float) -> str:
    """Return the average of ``copies``, pruned by magnitude in one ranking."""
    flags = {
        "copies": [artifact(copy) for copy in copies],
        "phase": phase,
        "sparsity": sparsity,
    }
    rules = ("pipeline.prune.criteria.magnitude", "pipeline.prune.allocations.global_")
    modules = (*rules, *work.network_modules())
    name = f"{work.method}-p{phase}-prune"
    return work.add(name, "prune_copies", flags, modules=modules, phase=phase)


def _copy(work: Planner, method: str, part: dict[str, Any], phase: int, number: int) -> str:
    names = ("retrain", phase, number) if number else ("pretrain",)
    flags = part | _flags(work, method, derive(work.seed, *names), phase)
    flags["same_streams"] = number == 0
    name = f"{work.method}-p{phase}-c{number}"
    return _add(work, name, method, flags, phase=phase, candidate=number)


def _flags(work: Planner, method: str, seed: int, phase: int) -> dict[str, Any]:
    """Return what a stage of ``method`` is told beside the part of the training that it does."""
    own, s = work.settings, work.settings.pretrain
    return {
        "data": artifact(work.data()),
        "network": own.network.name,
        "method": method,
        "phase": phase,
        "epochs": budget(work),
        "schedule": s.schedule,
        "milestones": s.milestones,
        "warmup": s.warmup or None,
        "learning_rate": s.learning_rate,
        "seed": seed,
        **work.training_flags(s.weight_decay),
    }


def _options(work: Planner, method: str) -> dict[str, Any]:
    """Return what ``method`` must know to choose masks."""
    own = work.settings
    known = own.sparsify.model_dump() | {"sparsity": own.target_sparsity}
    return {option.name: known[option.name] for option in options(method)}


def _add(work: Planner, name: str, method: str, flags: dict[str, Any], **places: int) -> str:
    modules = (f"pipeline.sparsify.{method}", *work.learning_modules())
    return work.add(name, "sparsify", flags, files=(), modules=modules, shared=False, **places)
