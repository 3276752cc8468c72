"""Soup minus best candidate up to where it breaks, distances and loss barriers (Figures 4a, 6a)."""

from itertools import product

from pydantic import Field

from pipeline.config.schema import Count, Schedule, Section, Sparsity
from pipeline.plan.measurements import compare, interpolate
from pipeline.plan.methods import sms
from pipeline.plan.studies.base import Study


class Grid(Section):
    """The values that vary; ``epochs`` and ``schedules`` are by default those of params.yaml.

    Of several schedules and epochs the report takes the best for each sparsity. ``points``: how
    many networks of the straight line between two candidates are measured, its ends included;
    ``barriers``: whether they are, for every pair of m candidates.
    """

    sparsities: list[Sparsity] = Field(
        [0.8, 0.9, 0.92, 0.94, 0.96, 0.98, 0.99, 0.995, 0.998, 0.999]
    )
    schedules: list[Schedule] | None = None
    epochs: list[Count] | None = None
    points: int = Field(5, ge=3)
    barriers: bool = True


def plan(work: Study) -> None:
    """Make every soup in one shot, and measure its candidates' distances and barriers (Table 18).

    With m = 1 there is nothing between candidates to measure.
    """
    grid, retrain = work.grid(Grid), work.settings.retrain
    retraining = product(grid.schedules or [retrain.schedule], grid.epochs or [retrain.epochs])
    for sparsity, (schedule, epochs) in product(grid.sparsities, retraining):
        shot = work.one_shot(sparsity).at(schedule=schedule, epochs=epochs)
        for soup in shot.collect(sms.plan):
            shot.set_method(soup.method)
            made_of, nodes = soup.candidates, {}
            if len(made_of) > 1:
                nodes["compare"] = compare(shot, soup.model, made_of, soup.phase)
            if len(made_of) > 1 and grid.barriers:
                nodes["interpolate"] = interpolate(shot, made_of, soup.phase, grid.points)
            shot.point(soup.phase, soup.model, made_of, **nodes)
