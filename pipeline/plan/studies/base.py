"""Study: the planner at other settings, with results of the study.

A study adds stages as methods do, and shares them with methods. Its results carry the values of the
settings that vary; they are no rows of the main report.
"""

from collections.abc import Callable, Iterator, Sequence
from math import isclose
from typing import Any, Self

from pipeline import registry
from pipeline.config.experiment import Grid
from pipeline.config.schema import Retrain
from pipeline.errors import UserError
from pipeline.plan.measurements import robustness
from pipeline.plan.plan import Plan, StudyResult
from pipeline.plan.planner import Planner
from pipeline.prune.pattern import parse

# The settings that `Study.at` varies, as keys of params.yaml. A sparsity is reached in one phase.
_KEYS = {
    "m": ("m",),
    "phases": ("phases",),
    "sparsity": ("phases", "target_sparsity"),
    "allocation": ("prune.allocation",),
    "schedule": ("retrain.schedule",),
    "epochs": ("retrain.epochs",),
}


class Study(Planner):
    """Plans one seed of a study."""

    def __init__(self, plan: Plan, seed: int, study: str) -> None:
        super().__init__(plan, seed)
        self.study = study
        self.values: dict[str, Any] = {}

    @property
    def source(self) -> str:
        """The name of the study, for errors."""
        return f"study {self.study}"

    def grid(self, kind: type[Grid]) -> Grid:
        """Return the grid of the study: defaults of ``kind``, replaced by those of params.yaml."""
        return self.settings.grid(self.study, kind)

    def at(self, **values: Any) -> Self:
        """Return the study at other ``values``, which its results carry from here on.

        The values may be m, phases, sparsity (in one phase), allocation, schedule and epochs. The
        name of a stage has those that differ from params.yaml, in a fixed order, so that studies
        with equal settings share it.
        """
        changes: dict[str, Any] = {}
        for name, value in values.items():
            settings = (1, value) if name == "sparsity" else (value,)
            changes |= dict(zip(_KEYS[name], settings, strict=True))
        if "allocation" in values:  # perhaps a path
            values["allocation"] = registry.label("prune/allocations", values["allocation"])
        return self.with_changes(changes, **values)

    def with_changes(self, changes: dict[str, Any], **values: Any) -> Self:
        """Return the study with ``changes`` by key, and ``values`` that its results carry."""
        other = self.with_settings("", changes)
        other.values = {**self.values, **values}
        other.variant = _variant(other)
        return other

    def labelled(self, **values: Any) -> Self:
        """Return the study at equal settings, whose results carry ``values`` too."""
        return self.with_changes({}, **values)

    def one_shot(self, sparsity: float) -> Self:
        """Return the study with one phase, to ``sparsity``, and add the stage that prunes.

        Added here, that stage is named after the sparsity alone, and not after the epochs or the
        schedule of the network that is retrained from it.

        Raises:
            UserError: N:M is pruned, and its sparsity is another one.
        """
        pattern = parse(self.settings.prune.structure)
        if pattern and not isclose(sparsity, pattern.sparsity):
            raise UserError(
                f"study.{self.study} has a sparsity of {sparsity:g}, but prune.structure is "
                f"{pattern}: set it to {pattern.sparsity:g} only, or leave the study out"
            )
        other = self.at(sparsity=sparsity)
        other.prune(other.pretrain(), 1)
        return other

    def retrain(
        self, pruned: str, phase: int, candidate: int = 0, times: int = 1, **more: Any
    ) -> str:
        """Return `Planner.retrain`; of a one-shot network it is named after its epochs alone.

        So m times the epochs of one study and the epochs of another are one stage, with one name.
        """
        if times == 1 or self.settings.phases > 1:
            return super().retrain(pruned, phase, candidate, times, **more)
        epochs = times * self.settings.retrain.epochs
        other = self.with_changes({"retrain.epochs": epochs, "m": self.plan.params.m})
        return other.retrain(pruned, phase, candidate, **more)

    def report(self, phase: int, model: str, candidates: Sequence[str] = ()) -> None:
        """Record what a method reports as a result of the study.

        This adds no stage: the folder of a network has its score.
        """
        self.point(phase, model, candidates)

    def corrupted(self, model: str, phase: int) -> str | None:
        """Measure ``model`` on corrupted images, if params.yaml wants all models measured."""
        if self.settings.evaluate.corruptions != "all":
            return None
        return robustness(self, model, phase)

    def collect(self, method: Callable[[Self], None]) -> list[StudyResult]:
        """Plan ``method`` and return what it reports, which is not recorded."""
        start = len(self.plan.points)
        method(self)
        results = self.plan.points[start:]
        del self.plan.points[start:]
        return results

    def point(
        self, phase: int, model: str, candidates: Sequence[str] = (), **nodes: str | None
    ) -> None:
        """Record ``model`` as a result, with further stages by the names of their measurements."""
        self.plan.points.append(
            StudyResult(
                study=self.study,
                seed=self.seed,
                values=dict(self.values),
                method=self.method,
                phase=phase,
                model=model,
                candidates=tuple(candidates),
                nodes={role: node for role, node in nodes.items() if node is not None},
                is_soup=self.plan.is_soup(model),
            )
        )


def _variant(study: Study) -> str:
    """Return the part of stages' names for the settings that differ from params.yaml."""
    here, there = study.settings, study.plan.params
    parts = []
    if "m" in study.values and here.m != there.m:  # other studies' stages do not depend on m
        parts.append(f"m{here.m}")
    if (here.phases, here.target_sparsity) != (there.phases, there.target_sparsity):
        if here.phases == 1:
            parts.append(f"oneshot{100 * here.target_sparsity:g}")
        elif here.phases == there.phases:
            parts.append(f"target{100 * here.target_sparsity:g}")
        else:
            parts.append(f"phases{here.phases}")
    if here.prune.allocation != there.prune.allocation:
        parts.append(registry.label("prune/allocations", here.prune.allocation))
    parts += _retraining(here.retrain, there.retrain)
    return "-".join(parts).replace(".", "_")


def _retraining(here: Retrain, there: Retrain) -> Iterator[str]:
    """Yield the settings of retraining that differ, as parts of names."""
    if here.schedule != there.schedule:
        yield here.schedule.lower()
    if here.epochs != there.epochs:
        yield f"epochs{here.epochs}"
    if here.average != there.average:
        yield here.average
    if (here.sam, here.rho) != (there.sam, there.rho):
        yield f"{here.sam}{here.rho:g}"
    if (here.distill, here.temperature) != (there.distill, there.temperature):
        yield f"distill{here.distill:g}at{here.temperature:g}"
    if here.vary != there.vary:
        yield here.vary
