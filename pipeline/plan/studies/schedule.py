"""Soup minus best candidate by retraining schedule and by length (Figures 9, 10)."""

from pydantic import Field

from pipeline.config.schema import Count, Schedule, Section, Sparsity
from pipeline.plan.methods import sms
from pipeline.plan.studies.base import Study


class Grid(Section):
    """The values that vary: schedules at the epochs of params.yaml, and epochs at its schedule."""

    sparsities: list[Sparsity] = Field([0.8, 0.9, 0.95, 0.98, 0.99])
    schedules: list[Schedule] = Field(["LRW", "SLR", "CLR", "LLR", "ALLR"])
    epochs: list[Count] = Field([1, 2, 5, 10, 20])


def plan(work: Study) -> None:
    """Make uniform soups in one shot."""
    grid, retrain = work.grid(Grid), work.settings.retrain
    by_schedule = [(schedule, retrain.epochs) for schedule in grid.schedules]
    by_length = [(retrain.schedule, epochs) for epochs in grid.epochs]
    for sparsity in grid.sparsities:
        shot = work.one_shot(sparsity).with_changes({"merge": ["uniform"]})
        for schedule, epochs in dict.fromkeys([*by_schedule, *by_length]):
            sms.plan(shot.at(schedule=schedule, epochs=epochs))
