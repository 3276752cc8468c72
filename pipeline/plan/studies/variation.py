"""Soups of candidates that differ in seed, decay, length, rate or all of them, at equal cost."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.config.experiment import Experiment
from pipeline.config.schema import Section, Sparsity
from pipeline.plan.measurements import compare
from pipeline.plan.methods import imp_mx
from pipeline.plan.studies._varied import SEEDS, Vary, retrain_all, values_of
from pipeline.plan.studies.base import Study

Kind = Literal[Vary, "all"]
TOGETHER: tuple[Vary, ...] = ("weight_decay", "epochs", "learning_rate")  # in "all", with the seed
SEED = {"retrain.vary": "seed", "retrain.values": None}


class Grid(Section):
    """The sparsity, the numbers of candidates, and the settings in which they differ."""

    sparsity: Sparsity = 0.9
    m: list[Annotated[int, Field(ge=2, le=SEEDS)]] = Field([3, 5])
    vary: list[Kind] = Field(["seed", "weight_decay", "epochs", "learning_rate", "all"])


def plan(work: Study) -> None:
    """Average the first m candidates of each kind, and retrain one copy m times as long.

    All retrain by the linear schedule, whose initial rate may vary. A kind is left out at an m for
    which the recipe has too few values, or at which its epochs are not m times the recipe's.
    """
    grid = work.grid(Grid)
    base = work.one_shot(grid.sparsity).at(schedule="LLR")
    for vary in grid.vary:
        sizes = [m for m in grid.m if is_equal_cost(base.settings, vary, m)]
        if sizes:
            _average(base, vary, sizes)
    for m in grid.m:
        imp_mx.plan(base.at(m=m).labelled(vary="none"))


def is_equal_cost(settings: Experiment, vary: Kind, m: int) -> bool:
    """Return whether m candidates that differ in ``vary`` exist and have m times the epochs."""
    varied = TOGETHER if vary == "all" else (vary,)
    values = {name: values_of(settings, name)[:m] for name in varied}
    total = m * settings.retrain.epochs
    enough = all(len(each) == m for each in values.values())
    return enough and sum(values.get("epochs", [total])) == total


def _average(base: Study, vary: Kind, sizes: list[int]) -> None:
    """Add the soups of the first m candidates for each m of ``sizes``, with distances."""
    most = max(sizes)
    if vary == "all":
        kind, candidates = _differ_in_all(base, most)
    else:
        kind, made = retrain_all(base, vary, values_of(base.settings, vary)[:most])
        candidates = [name for _, name in made]
    for m in sizes:
        soup = kind.at(m=m).labelled(vary=vary)
        # A part of the stage's name.
        soup.set_method("vary_all" if vary == "all" else "sms_uniform")
        model = soup.merge(candidates[:m], 1, "uniform")
        compared = compare(soup, model, candidates[:m], 1)
        soup.set_method("sms_uniform")
        soup.point(1, model, candidates[:m], compare=compared)


def _differ_in_all(base: Study, m: int) -> tuple[Study, list[str]]:
    """Return m candidates that differ in everything: value j of each setting, and seed j."""
    kind, pruned = base.with_changes(SEED | {"m": m}), base.prune(base.pretrain(), 1)
    kind.set_method("vary_all")
    candidates = [base.retrain(pruned, 1)]
    columns = [values_of(base.settings, name)[1:m] for name in TOGETHER]
    for j, row in enumerate(zip(*columns, strict=True), start=1):
        flags: dict[str, Any] = dict(zip(TOGETHER, row, strict=True))
        flags["epochs"] = int(flags["epochs"])  # grids have real numbers
        candidates.append(kind.retrain(pruned, 1, candidate=j, **flags))
    return kind, candidates
