"""SWAMP: rewinding, and the mean of m SWA particles chooses the next mask (Choi et al., 2024)."""

from pipeline.errors import UserError
from pipeline.plan.planner import Planner
from pipeline.plan.retraining import constant_rate_swa_flags
from pipeline.plan.rewinding import rewind, train_rest

LABEL = "SWAMP"
LOOK = ("green", "*", "-", 1.4)
BASELINES = ("rewind", "imp_mx", "imp")


def plan(work: Planner) -> None:
    """Train m particles from one rewound ticket, average each by SWA, and then the particles.

    The mean is the phase's result, and its mask is the next; its weights are not used again. The
    first mask is that of the dense network, which all methods share.

    Raises:
        UserError: the particles are to differ in anything but their seed.
    """
    work.set_method("swamp")
    if work.settings.retrain.vary != "seed":
        raise UserError(
            f"retrain.vary is {work.settings.retrain.vary}, but the particles of swamp differ by "
            "seed: set it to seed, or leave the method out"
        )
    average = constant_rate_swa_flags(work)
    mean = work.pretrain()
    for phase in work.phases:
        pruned = work.prune(mean, phase)
        ticket = rewind(work, pruned, phase)
        particles = [train_rest(work, ticket, phase, j, **average) for j in range(work.m)]
        mean = work.merge(particles, phase, "uniform")
        work.report(phase, mean, particles)
