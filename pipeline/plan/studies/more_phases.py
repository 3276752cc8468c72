"""IMP with m times the phases against IMP retrained m times as long (Table 16)."""

from pipeline.config.schema import Count, Section
from pipeline.plan.methods import imp, imp_mx
from pipeline.plan.studies.base import Study


class Grid(Section):
    """The values that vary; by default the one m of params.yaml."""

    m: list[Count] | None = None


def plan(work: Study) -> None:
    """Train one network for the epochs of m candidates: in longer phases, or in more of them."""
    phases = work.settings.phases
    for m in work.grid(Grid).m or [work.m]:
        imp_mx.plan(work.at(m=m))
        imp.plan(work.at(phases=m * phases).labelled(m=m))
