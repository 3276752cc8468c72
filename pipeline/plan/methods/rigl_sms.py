"""RigL, with m copies trained under its last mask and averaged (section 3.3; Evci et al., 2020)."""

from pipeline.plan import sparsify
from pipeline.plan.planner import Planner

LABEL = "RigL + SMS"
LOOK = ("purple", "h", "-", 1.2)
BASELINES = ("rigl",)


def plan(work: Planner) -> None:
    """Train one network until its mask is fixed, then m copies to the end, and average them."""
    work.set_method("rigl_sms")
    sparsify.sms(work, "rigl")
