"""Functions that plan pruning during training: one training, one that ends in SMS, and BIMP."""

from collections.abc import Callable
from typing import Any

from pipeline.errors import UserError
from pipeline.plan.plan import artifact
from pipeline.plan.planner import Planner
from pipeline.rounding import exact
from pipeline.schedules.sparsity import alternation, ramp, whole_epochs
from pipeline.seeds import derive
from pipeline.sparsify.config import options

Interval = tuple[int, int, float]  # from an epoch to another, at a sparsity
ALLOCATION = {"rigl": "erk"}  # of the methods that have one of params.yaml's as their own


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


def alone(method: str, *, may_start_dense: bool = False) -> Callable[[Planner], None]:
    """Return the plan of one training by ``method``, measured as the last phase's result.

    It starts at random. A method that ``may_start_dense`` starts from the dense network where
    ``sparsify.from_dense`` is true.
    """

    def plan(work: Planner) -> None:
        work.set_method(method)
        from_dense = may_start_dense and work.settings.sparsify.from_dense
        model = whole_training(work, method, from_dense=from_dense)
        work.report(work.phases[-1], model)

    return plan


def whole_training(work: Planner, method: str, *, from_dense: bool = False) -> str:
    """Return the network that ``method`` trains and prunes in one stage."""
    levels(work, method)  # refuses impossible settings
    parent = {"parent": artifact(work.pretrain())} if from_dense else {}
    seed = derive(work.seed, "pretrain")  # the dense network's initial weights and batches
    last = work.phases[-1]
    flags = {**parent, **_flags(work, method, seed, last), **_options(work, method)}
    return _add(work, f"{work.method}-p{last}", method, flags, phase=last)


def sms(work: Planner, method: str) -> None:
    """From ``sms_start`` on, train m copies per interval between pruning steps and average them.

    One network is trained up to there. At every pruning step the copies of the interval before are
    averaged, with their momentum, and the average is pruned; the last average is the result. Copy 0
    continues the training's own random streams, so that with m = 1 the result is the method's
    alone, bit for bit; the others have streams of their own.

    Raises:
        UserError: the candidates are to differ in anything but their seed.

    Source: Sparse Model Soups, section 3.3.
    """
    if work.settings.retrain.vary != "seed":
        raise UserError(
            f"retrain.vary is {work.settings.retrain.vary}, but the copies of {work.method} share "
            "one training and differ by seed: set it to seed, or leave the method out"
        )
    intervals = phases(work, method)
    options = _options(work, method)
    start = {**_flags(work, method, derive(work.seed, "pretrain"), 0), **options}
    first = start | {"to_epoch": intervals[0][0]}
    copies = [_add(work, f"{work.method}-p0", method, first, phase=0)]
    for interval, (begin, end, sparsity) in enumerate(intervals, start=1):
        pruned = artifact(_prune(work, copies, interval, sparsity))
        part = {"parent": pruned, "from_epoch": begin, "to_epoch": end, **options}
        copies = [_copy(work, method, part, interval, number) for number in range(work.m)]
    soup = work.merge(copies, len(intervals), "uniform")
    work.report(work.phases[-1], soup, copies)


def levels(work: Planner, method: str) -> dict[int, float]:
    """Return the sparsity after each pruning step of ``method``, by epoch.

    Of RigL, which has no such steps, it is the target, by the epoch after which the mask is fixed.
    It is empty for the other methods without a ramp.

    Raises:
        UserError: whole filters or N:M are to be pruned, or weights by another criterion or
            allocation than the method's own, which is after training only; or the method's schedule
            does not fit the epochs.
    """
    settings, epochs = work.settings, budget(work)
    if settings.prune.structure != "weights":
        raise UserError(
            f"prune.structure is {settings.prune.structure}, but {work.method} prunes single "
            "weights while it trains: set it to weights, or leave the method out"
        )
    if settings.prune.criterion != "magnitude":
        raise UserError(
            f"prune.criterion is {settings.prune.criterion}, but {work.method} has its own while "
            "it trains: set it to magnitude, or leave the method out"
        )
    own = ALLOCATION.get(method)
    if settings.prune.allocation not in {"global", own}:
        raise UserError(
            f"prune.allocation is {settings.prune.allocation}, but {work.method} has its own while "
            f"it trains: set it to global{f' or {own}' if own else ''}, or leave the method out"
        )
    chosen, names = settings.sparsify, {option.name for option in options(method)}
    if "acdc_phase" in names:
        alternation(epochs, chosen.acdc_warmup, chosen.acdc_phase, chosen.acdc_last)
    if "rigl_end" in names:
        return {whole_epochs(chosen.rigl_end, epochs): settings.target_sparsity}
    if "pruning_steps" not in names:
        return {}
    return ramp(settings.target_sparsity, epochs, chosen.pruning_steps)


def phases(work: Planner, method: str) -> list[Interval]:
    """Return the intervals after those pruning steps that come at ``sms_start`` or later.

    Raises:
        UserError: there are none.
    """
    steps, epochs, start = levels(work, method), budget(work), work.settings.sparsify.sms_start
    ends = [*list(steps)[1:], epochs]
    intervals = zip(steps, ends, steps.values(), strict=True)
    late = [interval for interval in intervals if interval[0] >= exact(start) * epochs]
    if max(steps) == epochs:
        raise UserError(
            f"sparsify.rigl_end is {work.settings.sparsify.rigl_end:g}, which leaves {work.method} "
            f"no epoch of {epochs} in which copies share a mask: lower it, or train longer"
        )
    if not late:
        more = ", or raise sparsify.pruning_steps" if len(ends) > 1 else ""
        raise UserError(
            f"sparsify.sms_start is {start:g}, but the last change of the mask is after epoch "
            f"{max(steps)} of {epochs}: lower it{more}"
        )
    return late


def bimp(work: Planner, copies: int = 1) -> Planner:
    """Return a planner in which dense training and all phases together take one budget.

    Every phase has equally many epochs; the remainder is the dense network's. Where params.yaml
    has a ``budget``, the ``copies`` of a phase share its epochs; else each has as many as one copy.

    Raises:
        UserError: too few epochs.

    Source: Zimmer et al. 2023 (BIMP), whose retraining schedule is ALLR.
    """
    share = work.settings.sparsify.dense_share
    total, cycles = work.settings.sparsify.epochs or work.settings.pretrain.epochs, len(work.phases)
    copies = copies if work.settings.budget else 1
    epochs = (total - whole_epochs(share, total)) // (cycles * copies)
    if epochs < 1:
        raise UserError(
            f"sparsify.dense_share leaves no epoch of {total} for each of {cycles} phases: lower "
            "it, or raise sparsify.epochs"
        )
    dense = total - cycles * copies * epochs
    values = {"retrain.epochs": copies * epochs, "retrain.schedule": "ALLR"}
    short = work.with_settings(f"bimp{dense}", {"pretrain.epochs": dense, **values})
    return short.with_length(f"epochs{epochs}", {"retrain.epochs": epochs})


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
    """Return copy ``number`` of an interval, trained for that ``part`` of the training."""
    names = ("retrain", phase, number) if number else ("pretrain",)
    flags = part | _flags(work, method, derive(work.seed, *names), phase)
    flags["same_streams"] = number == 0
    name = f"{work.method}-p{phase}-c{number}"
    return _add(work, name, method, flags, phase=phase, candidate=number)


def _flags(work: Planner, method: str, seed: int, phase: int) -> dict[str, Any]:
    """Return the flags of a stage that do not depend on its part of the training."""
    return {
        "data": artifact(work.data()),
        "network": work.settings.network.name,
        "method": method,
        "phase": phase,
        "epochs": budget(work),
        **work.pretrain_schedule(),
        "seed": seed,
        **work.training_flags(work.settings.pretrain.weight_decay),
    }


def _options(work: Planner, method: str) -> dict[str, Any]:
    """Return the values of the options of ``method``, from params.yaml."""
    values = work.settings.sparsify.model_dump() | {"sparsity": work.settings.target_sparsity}
    return {option.name: values[option.name] for option in options(method)}


def _add(work: Planner, name: str, method: str, flags: dict[str, Any], **labels: int) -> str:
    modules = (f"pipeline.sparsify.{method}", *work.learning_modules())
    return work.add(name, "sparsify", flags, files=(), modules=modules, shared=False, **labels)
