"""Soup minus best candidate, and the candidates' distances, over the sparsity (Figures 4a, 6a)."""

from itertools import product

from pydantic import Field

from pipeline.config.schema import Count, Schedule, Section, Sparsity
from pipeline.plan.methods import sms
from pipeline.plan.studies.base import Study


class Grid(Section):
    """The values that vary; ``epochs`` and ``schedules`` are by default those of params.yaml.

    Of several schedules and epochs the report takes the best for each sparsity.
    """

    sparsities: list[Sparsity] = Field([0.8, 0.9, 0.92, 0.94, 0.96, 0.98, 0.99, 0.995])
    schedules: list[Schedule] | None = None
    epochs: list[Count] | None = None


def plan(work: Study) -> None:
    """Make every soup in one shot, and measure how far apart its candidates lie (Table 18)."""
    grid, retrain = work.grid(Grid), work.settings.retrain
    retraining = product(grid.schedules or [retrain.schedule], grid.epochs or [retrain.epochs])
    for sparsity, (schedule, epochs) in product(grid.sparsities, retraining):
        shot = work.one_shot(sparsity).at(schedule=schedule, epochs=epochs)
        shot.distances = True
        sms.plan(shot)
