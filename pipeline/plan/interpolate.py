"""The planner's word for linear interpolation: the straight ways between networks."""

from collections.abc import Sequence

from pipeline.plan.ledger import joined
from pipeline.plan.nodes import artifact
from pipeline.plan.work import Work


def interpolate(work: Work, models: Sequence[str], phase: int, place: str = "") -> str:
    """Return the losses and barriers on the ways between all pairs of ``models``.

    ``place`` names them where a method has several sets in one phase.
    """
    flags = {"data": artifact(work.data()), "models": [artifact(name) for name in models]}
    name = joined(work.method, f"p{phase}", place, "interpolate")
    network = work.settings.network.name
    modules = () if network.startswith("torchvision.") else (f"pipeline.models.{network}",)
    return work.add(name, "interpolate", flags, modules=modules, phase=phase)
