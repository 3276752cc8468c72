"""SMS against IMP retrained m times as long, over the retraining length (Figures 4b, 6b)."""

from itertools import product

from pydantic import Field

from pipeline.config.schema import Count, Section, Sparsity
from pipeline.plan.methods import imp_mx, sms
from pipeline.plan.studies.base import Study


class Grid(Section):
    """What is varied; ``schedules`` defaults to the experiment's own.

    Of several schedules and merge rules the report takes the best at each place.
    """

    sparsities: list[Sparsity] = Field([0.9, 0.95, 0.98])
    epochs: list[Count] = Field([1, 2, 5, 10, 20])
    schedules: list[str] | None = None


def plan(work: Study) -> None:
    """Retrain m copies for k epochs each, and one for m k, in one shot."""
    grid = work.grid(Grid)
    retraining = list(product(grid.schedules or [work.settings.retrain.schedule], grid.epochs))
    for sparsity in grid.sparsities:
        shot = work.one_shot(sparsity)
        places = [shot.at(schedule=schedule, epochs=epochs) for schedule, epochs in retraining]
        for place in places:
            sms.plan(place)
        for place in places:  # after all soups: a candidate as long as this is the same network
            imp_mx.plan(place)
