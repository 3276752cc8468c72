"""Functions that add stages to the plan which measure or compare networks.

Each takes the planner and names of stages, and returns the name of the stage it adds.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.code_files import checkouts, is_path
from pipeline.errors import UserError
from pipeline.evaluate.corruptions.constants import ARCHIVES, NAMES_19
from pipeline.export.selection import check_installed, module_names, select
from pipeline.plan.dependencies import ROOT
from pipeline.plan.plan import Plan, Result, artifact
from pipeline.plan.raw_data import fingerprint
from pipeline.plan.stage_adder import StageAdder, join_name
from pipeline.seeds import derive

COMPILED = (  # what pipeline.inference reads, beside its modules
    "pipeline/inference/costs.csv",
    "pipeline/inference/sparse_conv.c",
)

POINTS = 11  # of an interpolation, its ends included


def evaluate(work: StageAdder, model: str, phase: int) -> str:
    """Measure ``model`` on the test split."""
    flags = {
        "data": artifact(work.data()),
        "model": artifact(model),
        "groups": work.settings.evaluate.groups,
    }
    modules = work.learning_modules()
    if not is_path(work.settings.task):
        modules = (*modules, f"pipeline.evaluate.{work.settings.task}")
    name = f"{work.short_name(model)}-eval"
    return work.add(name, "evaluate", flags, modules=modules, phase=phase)


def compare(work: StageAdder, model: str, candidates: Sequence[str], phase: int) -> str:
    """Compare ``model`` with the ``candidates`` it is made of: the best, distances, ensemble."""
    flags = {
        "data": artifact(work.data()),
        "candidates": [artifact(name) for name in candidates],
        "soup": artifact(model),
    }
    name = f"{work.short_name(model)}-compare"
    return work.add(name, "compare", flags, modules=work.learning_modules(), phase=phase)


def shrink(work: StageAdder, model: str, phase: int) -> str | None:
    """Remove the pruned filters of a last phase's network, and measure what that saves.

    None in other phases, and where no whole filters are pruned.
    """
    if work.settings.prune.structure != "filters" or phase != work.settings.phases:
        return None
    flags = {"data": artifact(work.data()), "model": artifact(model)}
    name = f"{work.short_name(model)}-shrink"
    return work.add(name, "shrink", flags, modules=work.network_modules(), phase=phase)


def export(work: StageAdder, row: Result) -> str | None:
    """Export the soup of ``row`` as params.yaml asks: of the last phase and the first seed.

    None for other results.

    Raises:
        UserError: a format needs a package that is not installed.
    """
    settings, first = work.plan.params, work.plan.params.seeds[0]
    if not settings.export or not row.is_soup or (row.phase, row.seed) != (settings.phases, first):
        return None
    formats = select(settings.export, settings.task)
    check_installed(formats)
    flags = {**export_inputs(work.plan, row), "formats": formats}
    modules = (*work.learning_modules(), *module_names(formats))
    name, files = f"{work.short_name(row.model)}-export", COMPILED if "sparse" in formats else ()
    return work.add(name, "export", flags, files=files, modules=modules, phase=row.phase)


def export_inputs(plan: Plan, row: Result) -> dict[str, Any]:
    """Return the flags of the stage export that name the artifacts of ``row``."""
    dense = next(each for each in plan.rows if (each.method, each.seed) == ("dense", row.seed))
    stages = {
        key: [artifact(name) for name in (each.evaluate, each.robustness) if name]
        for key, each in (("metrics", row), ("dense_metrics", dense))
    }
    models = {"model": artifact(row.model), "dense": artifact(dense.model)}
    return {"data": artifact("data"), **models, **stages}


def robustness(work: StageAdder, model: str, phase: int) -> str | None:
    """Measure ``model`` on corrupted images; None where params.yaml does not ask for it."""
    wanted = work.settings.evaluate.corruptions
    final = phase in (0, work.settings.phases)
    if work.settings.task != "classification":
        return None
    if wanted == "none" or (wanted == "final" and not final):
        return None
    data = artifact(work.data())
    corruptions, files = corrupted_images(work)
    flags = {"data": data, "model": artifact(model), "corruptions": corruptions}
    name, modules = f"{work.short_name(model)}-ood", work.network_modules()
    return work.add(name, "robustness", flags, files=files, modules=modules, phase=phase)


def corrupted_images(work: StageAdder) -> tuple[str, tuple[str, ...]]:
    """Return the folder of the corrupted images, and those of its files that no stage writes.

    Official arrays, a few large files, are a dependency of every evaluation. Official image
    files, millions of them, are listed by a stage, and evaluations depend on the list; a hash over
    their names and sizes is in that stage's command, so that another set is listed anew. Without
    an official set a stage corrupts the test images.
    """
    official, data = work.settings.evaluate.corruptions_path, artifact(work.data())
    if official is None:
        return artifact(work.add("corruptions", "corrupt", {"data": data}, shared=True)), ()
    if not _has_image_files(official):
        return official, (official,)
    flags = {"data": data, "folder": official, "listing": work.plan.once(fingerprint, official)}
    stage = work.add("corruptions", "list_corruptions", flags, shared=True)
    work.plan.nodes[stage].unwatched = (official,)
    return artifact(stage), ()


def _has_image_files(folder: str) -> bool:
    """Say whether ``folder`` is laid out as ImageNet-C, here or in the main checkout."""
    names = (*NAMES_19, *ARCHIVES)
    return any((home / folder / name).is_dir() for home in checkouts(ROOT) for name in names)


def interpolate(work: StageAdder, models: Sequence[str], phase: int, points: int = POINTS) -> str:
    """Measure the loss at ``points`` of the straight line between each two of ``models``.

    Raises:
        UserError: there is only one model.
    """
    if len(models) < 2:
        raise UserError("m is 1, but interpolation needs two networks: set m to 2 or more")
    flags = {
        "data": artifact(work.data()),
        "models": [artifact(name) for name in models],
        "points": points,
    }
    density = "" if points == POINTS else str(points)
    name = join_name(work.method, f"p{phase}", f"interpolate{density}")
    return work.add(name, "interpolate", flags, modules=work.learning_modules(), phase=phase)


def align(work: StageAdder, reference: str, run: str, phase: int, number: int) -> str:
    """Permute the channels of run ``number`` so that its weights are closest to ``reference``'s."""
    flags = {
        "data": artifact(work.data()),
        "reference": artifact(reference),
        "run": artifact(run),
        "seed": derive(work.seed, "align", phase, number),
    }
    name = join_name(work.method, f"p{phase}", f"run{number}")
    modules = work.learning_modules()
    return work.add(name, "align", flags, modules=modules, phase=phase, candidate=number)


def latency(work: StageAdder, model: str, phase: int) -> str:
    """Measure the time of ``model``, compiled for inference on a CPU."""
    flags = {"data": artifact(work.data()), "model": artifact(model)}
    name = f"{work.short_name(model)}-latency"
    modules = work.network_modules()
    return work.add(name, "latency", flags, files=COMPILED, modules=modules, phase=phase)
