"""The loss around soups and candidates, and what pruning and the next phase make of each."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from pipeline.config.schema import Count, Section
from pipeline.errors import UserError
from pipeline.plan.measurements import interpolate
from pipeline.plan.plan import artifact
from pipeline.plan.studies.base import Study
from pipeline.seeds import derive


class Grid(Section):
    """Sizes of the measurements.

    ``points``: of each line between two candidates. ``plane``: of each side of the plane through
    the first three candidates, which is measured for the first seed. ``probes``: random vectors for
    the trace. ``images``: training images, at most, of all but the lines.
    """

    points: Annotated[int, Field(ge=3)] = 11
    plane: Annotated[int, Field(ge=2)] = 13
    probes: Annotated[int, Field(ge=2)] = 10
    images: Count = 1000


def plan(work: Study) -> None:
    """Measure soup and candidates of each phase, and prune and retrain each as a parent.

    In the next phase every parent's copies have the seeds of the soup's: candidate j's one copy has
    that of the soup's copy j.

    Raises:
        UserError: m is less than 3, so that no three candidates span a plane.
    """
    if work.m < 3:
        raise UserError(
            f"studies has landscape, which draws the plane through three candidates, but m is "
            f"{work.m}: set m to 3 or more, or leave the study out"
        )
    work.set_method("sms_uniform")
    pruned = work.prune(work.pretrain(), 1)
    for phase in work.phases:
        candidates = [work.retrain(pruned, phase, candidate=j) for j in range(work.m)]
        soup = work.merge(candidates, phase, "uniform")
        nodes = _surfaces(work, candidates, phase) | {"curvature": _curvature(work, soup, phase)}
        if phase < work.settings.phases:
            pruned, after = _next_phase(work, soup, phase, range(work.m))
            nodes |= after
        work.values = {"sparsity": work.sparsity(phase), "network": "soup"}
        work.point(phase, soup, candidates, **nodes)
        for j, candidate in enumerate(candidates):
            _candidate(work, candidate, phase, j)


def _candidate(work: Study, candidate: str, phase: int, j: int) -> None:
    """Record candidate ``j`` of a phase, and prune and retrain it alone in the next one."""
    nodes = {"curvature": _curvature(work, candidate, phase)}
    if phase < work.settings.phases:
        if phase == 1:  # they are IMP's runs, and IMP-RePrune's
            work.set_method("imp_reprune", lineage="imp")
        else:
            work.set_method("candidate")
        nodes |= _next_phase(work, candidate, phase, [j], run=j)[1]
        work.set_method("sms_uniform")
    work.values = {"sparsity": work.sparsity(phase), "network": f"c{j}"}
    work.point(phase, candidate, **nodes)


def _next_phase(
    work: Study, parent: str, phase: int, copies: Sequence[int], run: int | None = None
) -> tuple[str, dict[str, str]]:
    """Return ``parent`` pruned for the next phase, and the damage and the retrained ``copies``."""
    pruned = work.prune(parent, phase + 1, run=run)
    flags = {"model": artifact(parent), "pruned": artifact(pruned), "seed": _seed(work, phase)}
    nodes = {"damage": _measure(work, "damage", work.short_name(parent), phase, flags)}
    nodes |= {f"next{j}": work.retrain(pruned, phase + 1, candidate=j) for j in copies}
    return pruned, nodes


def _surfaces(work: Study, candidates: list[str], phase: int) -> dict[str, str]:
    """Add the lines between all candidates and, for the first seed, the plane through three."""
    grid = work.grid(Grid)
    nodes = {"interpolate": interpolate(work, candidates, phase, grid.points)}
    if work.seed == work.plan.params.seeds[0]:
        flags = {"models": [artifact(name) for name in candidates[:3]], "points": grid.plane}
        nodes["plane"] = _measure(work, "plane", f"{work.method}-p{phase}", phase, flags)
    return nodes


def _curvature(work: Study, model: str, phase: int) -> str:
    flags = {
        "model": artifact(model),
        "batch_size": work.settings.pretrain.batch_size,
        "probes": work.grid(Grid).probes,
        "seed": _seed(work, phase),
    }
    return _measure(work, "curvature", work.short_name(model), phase, flags)


def _seed(work: Study, phase: int) -> int:
    """Return the seed of the batches and random vectors of all networks of a phase."""
    return derive(work.seed, "curvature", phase)


def _measure(work: Study, script: str, name: str, phase: int, flags: dict[str, Any]) -> str:
    """Add the stage ``NAME-SCRIPT``, which measures on training images."""
    common = {"data": artifact(work.data()), "train_images": work.grid(Grid).images}
    modules = work.learning_modules()
    return work.add(f"{name}-{script}", script, common | flags, modules=modules, phase=phase)
