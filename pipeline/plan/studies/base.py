"""What every study is written in: the planner's vocabulary, at other settings, with points.

A study plans the same stages as the methods do and shares every one that they plan too. What it
measures are points, not rows of the report: each says which values tell it apart.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

from pipeline.config.experiment import Grid
from pipeline.plan.measurements import compare, robustness
from pipeline.plan.plan import Plan, StudyResult
from pipeline.plan.planner import Planner

# What `Study.at` may vary: the keys of params.yaml, and how a stage's name says it. One sparsity
# is always one shot.
_KEYS = {
    "m": ("m",),
    "phases": ("phases",),
    "sparsity": ("phases", "target_sparsity"),
    "schedule": ("retrain.schedule",),
    "epochs": ("retrain.epochs",),
}


class Study(Planner):
    """One seed's share of a study."""

    def __init__(self, plan: Plan, seed: int, study: str) -> None:
        super().__init__(plan, seed)
        self.study = study
        self.values: dict[str, Any] = {}
        self.distances = False  # whether `report` measures how far apart candidates lie

    def grid(self, kind: type[Grid]) -> Grid:
        """Return what the study varies: the defaults of ``kind``, and params.yaml's over them."""
        return self.settings.grid(self.study, kind)

    def at(self, **values: Any) -> Self:
        """Return the study at other ``values``, which its points carry from here on.

        Known are m, phases, sparsity (as one shot), schedule and epochs. A stage's name
        says only what differs from params.yaml, in one order, so that studies that meet share it.
        """
        changes: dict[str, Any] = {}
        for name, value in values.items():
            settings = (1, value) if name == "sparsity" else (value,)
            changes |= dict(zip(_KEYS[name], settings, strict=True))
        return self.with_changes(changes, **values)

    def with_changes(self, changes: dict[str, Any], **values: Any) -> Self:
        """Return the study with ``changes`` by key, and ``values`` that its points carry."""
        other = self.with_settings("", changes)
        other.values = {**self.values, **values}
        other.variant = _variant(other)
        return other

    def one_shot(self, sparsity: float) -> Self:
        """Return the study at one prune-retrain cycle to ``sparsity``, its pruning planned.

        Planned first, the pruned network is named for what it is and not for what is retrained
        from it: another grid of epochs or schedules then moves nothing.
        """
        other = self.at(sparsity=sparsity)
        other.prune(other.pretrain(), 1)
        return other

    def report(self, phase: int, model: str, candidates: Sequence[str] = ()) -> None:
        """Record what a method reports as a point of the study; nothing more is measured.

        Every network's folder holds its accuracies, so a point costs no stage of its own.
        """
        wanted = self.distances and len(candidates) > 1
        compared = compare(self, model, candidates, phase) if wanted else None
        self.point(phase, model, candidates, compare=compared)

    def corrupted(self, model: str, phase: int) -> str | None:
        """Measure ``model`` on corrupted images, if params.yaml wants all models measured."""
        if self.settings.evaluate.corruptions != "all":
            return None
        return robustness(self, model, phase)

    def collect(self, method: Callable[[Self], None]) -> list[StudyResult]:
        """Plan ``method`` and return its points, which the study does not count as its own."""
        start = len(self.plan.points)
        method(self)
        found = self.plan.points[start:]
        del self.plan.points[start:]
        return found

    def point(
        self, phase: int, model: str, candidates: Sequence[str] = (), **nodes: str | None
    ) -> None:
        """Record ``model``, and further ``nodes`` with metrics by what they measure, if any."""
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
    """Return what the names of stages say about settings that params.yaml does not have."""
    here, there = study.settings, study.plan.params
    retrain, other = here.retrain, there.retrain
    parts = []
    if "m" in study.values and here.m != there.m:  # else no stage depends on it
        parts.append(f"m{here.m}")
    if (here.phases, here.target_sparsity) != (there.phases, there.target_sparsity):
        if here.phases == 1:
            parts.append(f"oneshot{100 * here.target_sparsity:g}")
        else:
            parts.append(f"phases{here.phases}")
    if retrain.schedule != other.schedule:
        parts.append(retrain.schedule.lower())
    if retrain.epochs != other.epochs:
        parts.append(f"epochs{retrain.epochs}")
    if retrain.vary != other.vary:
        parts.append(retrain.vary)
    return "-".join(parts).replace(".", "_")
