"""Soups of quantised candidates against quantised soups, with and without distillation."""

from typing import Annotated

from pydantic import Field

from pipeline.config.schema import Section
from pipeline.plan.methods import sms
from pipeline.plan.plan import StudyResult, artifact
from pipeline.plan.stage_adder import join_name
from pipeline.plan.studies.base import Study

Bits = Annotated[int, Field(ge=2, le=16)]
Share = Annotated[float, Field(ge=0, le=1)]


class Grid(Section):
    """The bits of a weight, and ``retrain.distill`` of the candidates.

    ``distill`` is by default 0 and 0.5 for a classifier, and 0 for other tasks.
    """

    bits: list[Bits] = Field([8, 4])
    distill: list[Share] | None = None


def plan(work: Study) -> None:
    """Quantise each phase's candidates and uniform soup; no later phase starts from the result."""
    grid = work.grid(Grid)
    default = [0.0, 0.5] if work.settings.task == "classification" else [0.0]
    for distill in dict.fromkeys(grid.distill or default):
        option = work.with_changes({"retrain.distill": distill, "merge": ["uniform"]})
        for soup in option.collect(sms.plan):
            option.set_method(soup.method)
            at = {"sparsity": option.sparsity(soup.phase), "distill": distill}
            option.values = at | {"bits": 32, "quantised": "none"}
            option.point(soup.phase, soup.model, soup.candidates)
            for bits in dict.fromkeys(grid.bits):
                option.values = at | {"bits": bits}
                _quantised(option, soup)


def _quantised(work: Study, soup: StudyResult) -> None:
    """Quantise the soup, and the mean of the quantised candidates, which itself is float32."""
    phase, bits = soup.phase, work.values["bits"]
    candidates = [_quantise(work, name, bits, phase) for name in soup.candidates]
    name = join_name(work.method, f"p{phase}", f"int{bits}_candidates")
    mean = work.merge(candidates, phase, "uniform", name)
    networks = {
        "soup": _quantise(work, soup.model, bits, phase),
        "both": _quantise(work, mean, bits, phase),
        "candidates": mean,
    }
    for quantised, network in networks.items():
        work.labelled(quantised=quantised).point(phase, network, candidates)


def _quantise(work: Study, model: str, bits: int, phase: int) -> str:
    """Add the stage that quantises ``model``."""
    flags = {"data": artifact(work.data()), "model": artifact(model), "bits": bits}
    name = f"{work.short_name(model)}-int{bits}"
    return work.add(name, "quantise", flags, modules=work.learning_modules(), phase=phase)
