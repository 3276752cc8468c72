"""Every merge rule on the same candidates, with nothing retrained in between."""

from pipeline import registry
from pipeline.config.members import check
from pipeline.config.schema import Count, Section
from pipeline.errors import UserError
from pipeline.plan.measurements import compare
from pipeline.plan.methods import sms
from pipeline.plan.studies.base import Study
from pipeline.soup.build import label


class Grid(Section):
    """The phase of the candidates, by default the last, and the rules, by default all that can."""

    phase: Count | None = None
    rules: list[str] | None = None


def plan(work: Study) -> None:
    """Merge the candidates of a phase's uniform soup by each rule."""
    grid = work.grid(Grid)
    phase = grid.phase or work.settings.phases
    if phase > work.settings.phases:
        raise UserError(
            f"params.yaml: study.merging.phase is {phase}, but there are only "
            f"{work.settings.phases} phases: name one of them, or leave it null for the last"
        )
    soups = work.with_changes({"merge": ["uniform"]}).collect(sms.plan)
    candidates = soups[phase - 1].candidates
    rules = registry.names("soup")
    for rule in grid.rules or ():
        check("soup", rule, "params.yaml: study.merging.rules")
    possible = [rule for rule in rules if work.can_merge(rule)]
    for rule in dict.fromkeys(["uniform", *(grid.rules or possible)]):
        work.set_method(f"merged_{label(rule)}")
        soup = work.merge(candidates, phase, rule)
        work.set_method(f"sms_{label(rule)}")
        work.point(phase, soup, candidates, compare=compare(work, soup, candidates, phase))
