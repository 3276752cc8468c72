"""SMS against IMP retrained m times as long, over the retraining length (Figures 4b, 6b)."""

from itertools import product

from pydantic import Field

from pipeline.config.schema import Count, Schedule, Section, Sparsity
from pipeline.plan.methods import imp_mx, sms
from pipeline.plan.studies.base import Study


class Grid(Section):
    """The values that vary; ``schedules`` is by default that of params.yaml.

    Of several schedules and merge rules the report takes the best for each sparsity and length.
    """

    sparsities: list[Sparsity] = Field([0.9, 0.95, 0.98])
    epochs: list[Count] = Field([1, 2, 5, 10, 20])
    schedules: list[Schedule] | None = None


def plan(work: Study) -> None:
    """Retrain m copies for k epochs each, and one for m k, in one shot."""
    grid = work.grid(Grid)
    retraining = list(product(grid.schedules or [work.settings.retrain.schedule], grid.epochs))
    for sparsity in grid.sparsities:
        shot = work.one_shot(sparsity)
        settings = [shot.at(schedule=schedule, epochs=epochs) for schedule, epochs in retraining]
        for each in settings:
            sms.plan(each)
        for each in settings:  # after all soups: a candidate of equal length is the same network
            imp_mx.plan(each)
