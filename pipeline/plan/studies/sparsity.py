"""Soup minus best candidate, and the candidates' distances, over the sparsity (Figures 4a, 6a)."""

from itertools import product

from pydantic import Field

from pipeline.config.schema import Count, Section, Sparsity
from pipeline.plan.methods import sms
from pipeline.plan.studies.base import Study


class Grid(Section):
    """What is varied; ``epochs`` and ``schedules`` default to the experiment's own.

    Of several schedules and epochs the report takes the best for each sparsity.
    """

    sparsities: list[Sparsity] = Field([0.8, 0.9, 0.92, 0.94, 0.96, 0.98, 0.99, 0.995])
    schedules: list[str] | None = None
    epochs: list[Count] | None = None


def plan(work: Study) -> None:
    """Make every soup in one shot, and measure how far apart its candidates lie (Table 18)."""
    grid, own = work.grid(Grid), work.settings.retrain
    retraining = product(grid.schedules or [own.schedule], grid.epochs or [own.epochs])
    for sparsity, (schedule, epochs) in product(grid.sparsities, retraining):
        shot = work.one_shot(sparsity).at(schedule=schedule, epochs=epochs)
        shot.distances = True
        sms.plan(shot)
