"""SMS compared with IMP by group: recalls, and added errors (Appendix B.2.4, Table 15)."""

from pydantic import Field

from pipeline import registry
from pipeline.config.schema import Section, Sparsity
from pipeline.errors import UserError
from pipeline.plan.plan import artifact
from pipeline.plan.studies.base import Study


class Grid(Section):
    """The sparsities, methods and group set (by default the first of the data) to compare."""

    sparsities: list[Sparsity] = Field([0.9, 0.95, 0.97])
    methods: list[str] = Field(["imp", "imp_mx", "sms"])
    groups: str | None = None


def plan(work: Study) -> None:
    """Measure the dense network, and each method in one phase to each sparsity, group by group.

    A soup's candidates are measured too: the soup is compared with the best and with their mean.
    """
    grid, task = work.grid(Grid), work.settings.task
    if task != "classification":
        raise UserError(
            f"studies has subgroups, which needs a classifier, but the recipe's task is {task}: "
            "leave it out"
        )
    work.values = {"sparsity": 0.0}
    work.point(0, work.pretrain(), shift=_shift(work, work.pretrain(), 0))
    for sparsity in grid.sparsities:
        shot = work.one_shot(sparsity)
        for name in grid.methods:
            method = registry.load("plan/methods", name, "study.subgroups.methods")
            for point in shot.collect(method.plan):
                shot.set_method(point.method)
                models = [point.model, *point.candidates]
                model, *candidates = [_shift(shot, each, point.phase) for each in models]
                more = {f"candidate{j}": node for j, node in enumerate(candidates)}
                shot.point(point.phase, point.model, point.candidates, shift=model, **more)


def _shift(work: Study, model: str, phase: int) -> str:
    """Add the stage with the recalls of ``model`` by group and its changes of error by pruning."""
    flags = {
        "data": artifact(work.data()),
        "model": artifact(model),
        "dense": artifact(work.pretrain()) if phase else None,
        "groups": work.grid(Grid).groups,
    }
    name = f"{work.short_name(model)}-shift"
    return work.add(name, "shift", flags, modules=work.network_modules(), phase=phase)
