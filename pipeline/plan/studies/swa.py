"""IMP against IMP+SWA under every retraining schedule (appendix C.3, Table 17)."""

from pydantic import Field

from pipeline.config.schema import Schedule, Section
from pipeline.plan.methods import imp, imp_swa
from pipeline.plan.studies.base import Study


class Grid(Section):
    """The retraining schedules."""

    schedules: list[Schedule] = Field(["FT", "LRW", "SLR", "CLR", "LLR", "ALLR"])


def plan(work: Study) -> None:
    """Run both by each schedule, in the phases of params.yaml."""
    for schedule in work.grid(Grid).schedules:
        imp.plan(work.at(schedule=schedule))
        imp_swa.plan(work.at(schedule=schedule))
