"""Soups under masks that a training changes (RigL, DPF) against one training of equal epochs."""

from typing import Literal

from pydantic import Field

from pipeline import registry
from pipeline.config.schema import Section, Sparsity
from pipeline.plan.budget import total
from pipeline.plan.studies.base import Study


class Grid(Section):
    """The methods, and the sparsities that they train to, by default that of params.yaml."""

    methods: list[Literal["rigl", "dpf"]] = Field(["rigl", "dpf"])
    sparsities: list[Sparsity] | None = None


def plan(work: Study) -> None:
    """Train one network, a soup, and one network for the epochs of the soup with all its copies.

    The copies share the mask that the training ends with.
    """
    grid, dense = work.grid(Grid), work.pretrain()
    work.values = {"sparsity": 0.0, "mask": "dense", "role": "dense"}
    _record(work, 0, dense)
    for sparsity in dict.fromkeys(grid.sparsities or [work.settings.target_sparsity]):
        for method in grid.methods:
            values = {"target_sparsity": sparsity}
            one = work.with_changes(values, sparsity=sparsity, mask=method)
            _run(one, method, "single")
            epochs = _run(one, f"{method}_sms", "soup")
            longer = one.with_length(f"train{epochs}", {"sparsify.epochs": epochs})
            _run(longer, method, "longer")


def _run(work: Study, method: str, role: str) -> int:
    """Plan ``method``, record its result in its ``role``, and return its epochs."""
    module = registry.load("plan/methods", method, "study.dynamic_masks.methods")
    (result,) = work.collect(module.plan)
    work.values = {**work.values, "role": role}
    return _record(work, result.phase, result.model, result.candidates)


def _record(work: Study, phase: int, model: str, candidates: tuple[str, ...] = ()) -> int:
    """Record ``model`` with the epochs of all trainings that it depends on, and return these."""
    epochs = total(work.plan, model)
    work.values = {**work.values, "epochs": epochs}
    work.point(phase, model, candidates)
    return epochs
