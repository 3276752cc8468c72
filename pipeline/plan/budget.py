"""Equal budget: the length of training at which a method takes a given number of passes.

A pass is a forward and backward computation over the training images; passes are counted in epochs.
A budget of B epochs is spent exactly, on all trainings that a method's last network depends on:

    sum over the trainings of  epochs * passes of a step  =  B

The sum is read from a trial plan of the method, so no method declares its cost. The length is
retrain.epochs of methods whose sum depends on it, and sparsify.epochs of the others, which prune
during training.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.plan.passes import passes
from pipeline.plan.plan import Plan, Stage
from pipeline.plan.planner import Planner

RETRAIN, SPARSIFY = "retrain.epochs", "sparsify.epochs"
_NAMES = {RETRAIN: "epochs", SPARSIFY: "train"}  # in names of stages, before the epochs
_ROUNDS = 40  # of the search for a budget that all methods can spend
_TOO_LONG = 10**9  # passes, more than any budget
_SPARE = 1000  # epochs more than the budget that a method may need at least

MethodPlan = Callable[[Planner], None]


def stages_of(plan: Plan, model: str) -> Iterator[Stage]:
    """Yield the stage of ``model`` and all stages that it depends on, each once."""
    needed = {model}
    for stage in reversed(plan.nodes.values()):  # inputs come first
        if stage.name in needed:
            needed.update(stage.inputs)
            yield stage


def total(plan: Plan, model: str) -> int:
    """Return the passes of all trainings that ``model`` depends on, in epochs.

    Pretraining up to an early epoch is left out: the dense network's own training passes through
    the same weights.
    """
    return sum(passes(stage) for stage in stages_of(plan, model) if not _is_early(stage))


def _is_early(stage: Stage) -> bool:
    return stage.script == "pretrain" and "to_epoch" in stage.arguments


@dataclass(frozen=True)
class Length:
    """The length of a method's trainings: a key of params.yaml and its value."""

    key: str
    epochs: int

    def planner(self, work: Planner) -> Planner:
        """Return ``work`` at this length, which is a part of the names of its trainings."""
        section, name = self.key.split(".")
        default = getattr(getattr(work.settings, section), name) or work.settings.pretrain.epochs
        values = {} if self.epochs == default else {self.key: self.epochs}
        return work.with_length(f"{_NAMES[self.key]}{self.epochs}", values)


class Trial:
    """Plans one method alone at several lengths and counts its passes.

    Attributes:
        key: the setting that is the method's length.
        error: the last reason why a length was impossible.
    """

    def __init__(self, plan: Plan, method: MethodPlan) -> None:
        changes = {"merge": plan.params.merge[:1], "export": [], "evaluate.corruptions": "none"}
        self._empty = plan.empty(plan.params.with_values(changes, "budget"))
        self._method = method
        self._passes: dict[tuple[str, int], int] = {}
        self.error: UserError | None = None
        varies = self._count(RETRAIN, 1) != self._count(RETRAIN, 2)
        self.key = RETRAIN if varies else SPARSIFY

    def passes(self, length: int) -> int:
        """Return the passes at a length that the method does not refuse.

        A length that is too short has 0, and one that is too long `_TOO_LONG`.
        """
        count = self._count(self.key, length)
        too_long = not count and length > 1 and self._count(self.key, 1)
        return _TOO_LONG if too_long else count

    def length(self, budget: int) -> int | None:
        """Return the length at which the method takes exactly ``budget`` passes, if there is one.

        An epoch more is a pass more at least, so the passes grow with the length.
        """
        length = self._first_with(budget)
        return length if self.passes(length) == budget else None

    def at_least(self, budget: int) -> int:
        """Return the smallest possible number of passes from ``budget`` on; 0 if there is none."""
        count = self.passes(self._first_with(budget))
        return count if budget <= count < _TOO_LONG else 0

    def at_most(self, budget: int) -> int:
        """Return the largest possible number of passes up to ``budget``; 0 if there is none."""
        longer = self._first_with(budget + 1)
        return self.passes(longer - 1) if longer > 1 else 0

    def _first_with(self, budget: int) -> int:
        """Return the shortest length with at least ``budget`` passes: bisection around a guess."""
        low, step = self._guess(budget) - 1, 1
        while low > 0 and self.passes(low) >= budget:
            low, step = max(0, low - step), 2 * step
        high = low + 1
        while self.passes(high) < budget and high < budget + _SPARE:
            low, high, step = high, high + step, 2 * step
        return low + 1 + bisect_left(range(low + 1, high), budget, key=self.passes)

    def _guess(self, budget: int) -> int:
        """Return the length with at least ``budget`` passes if every epoch costs the same."""
        if self.key == SPARSIFY:
            return budget * budget // max(budget, self.passes(budget))
        first, second = self.passes(1), self.passes(2)
        return 1 + max(0, -((first - budget) // (second - first)))

    def _count(self, key: str, length: int) -> int:
        if length < 1:
            return 0
        if (key, length) not in self._passes:
            try:
                plan = self._plan(key, length)
                self._passes[key, length] = total(plan, plan.rows[-1].model)
            except UserError as error:
                self._passes[key, length], self.error = 0, error
        return self._passes[key, length]

    def _plan(self, key: str, length: int) -> Plan:
        settings = self._empty.params
        values = {RETRAIN: 1, SPARSIFY: settings.budget} | {key: length}
        plan = self._empty.empty(settings.with_values(values, "budget"))
        self._method(Planner(plan, settings.seeds[0]))
        return plan


def lengths(plan: Plan, methods: Mapping[str, MethodPlan]) -> dict[str, Length]:
    """Return the length of each method at which it spends the budget; {} without a budget.

    Raises:
        UserError: a method cannot spend the budget exactly, or candidates differ in their length.
    """
    params = plan.params
    if params.budget is None:
        return {}
    if params.retrain.vary == "epochs":
        raise UserError(
            "retrain.vary is epochs, but budget divides its epochs equally over the candidates: "
            "set retrain.vary to seed, or budget to null"
        )
    trials = {name: Trial(plan, method) for name, method in methods.items()}
    fitting = {name: trial.length(params.budget) for name, trial in trials.items()}
    refusing = [name for name, length in fitting.items() if length is None]
    if refusing:
        raise _refusal(plan, refusing, trials)
    return {
        name: Length(trials[name].key, length)
        for name, length in fitting.items()
        if length is not None
    }


def nearest(budget: int, trials: Sequence[Trial], step: int) -> int | None:
    """Return the nearest budget below (``step`` -1) or above (1) that all ``trials`` can spend.

    Each round moves to the furthest of the budgets that are next for single methods. Of methods
    with equal passes at a few lengths one is asked, and all in the end.
    """
    kinds = {(t.key, *map(t.passes, (1, 2, budget, 2 * budget))): t for t in trials}.values()
    goal = budget + step
    for _ in range(_ROUNDS):
        options = [t.at_most(goal) if step < 0 else t.at_least(goal) for t in kinds]
        if 0 in options:
            return None
        if all(option == goal for option in options):
            return goal if all(trial.length(goal) for trial in trials) else None
        goal = min(options) if step < 0 else max(options)
    return None


def _refusal(plan: Plan, refusing: Sequence[str], trials: Mapping[str, Trial]) -> UserError:
    """Return the error that names the methods and the nearest budgets of all methods."""
    params = plan.params
    budget = params.budget or 0
    options = [nearest(budget, list(trials.values()), step) for step in (-1, 1)]
    near = [str(option) for option in options if option is not None]
    names = " and ".join(filter(None, (", ".join(refusing[:-1]), refusing[-1])))
    problem = (
        f"params.yaml: budget is {budget}, which {names} cannot spend in whole epochs of "
        f"every training (pretraining takes {params.pretrain.epochs})"
    )
    if near:
        word = "these methods" if len(trials) > 1 else "this method"
        return UserError(f"{problem}: set it to {' or '.join(near)}, the nearest that {word} can")
    impossible = [
        trial.error for trial in trials.values() if trial.error and not trial.at_least(budget)
    ]
    if impossible:
        return impossible[0]
    return UserError(
        f"{problem}, and no other budget suits all methods: leave some out, or change "
        "pretrain.epochs, m or phases"
    )
