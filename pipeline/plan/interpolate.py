"""The planner's word for linear interpolation: the straight ways between networks."""

from collections.abc import Sequence

from pipeline.errors import UserError
from pipeline.plan.ledger import join_name
from pipeline.plan.plan import artifact
from pipeline.plan.work import Planner


def interpolate(work: Planner, models: Sequence[str], phase: int, points: int = 11) -> str:
    """Return the losses and barriers at ``points`` of the ways between all pairs of ``models``.

    Raises:
        UserError: there is but one model.
    """
    if len(models) < 2:
        raise UserError("m is 1, but ways lead from network to network: set m to 2 or more")
    flags = {
        "data": artifact(work.data()),
        "models": [artifact(name) for name in models],
        "points": points,
    }
    name = join_name(work.method, f"p{phase}", "interpolate")
    return work.add(name, "interpolate", flags, modules=work.learning_modules(), phase=phase)
