"""results.md: what came out, on one page."""

from pipeline.plan.build import studies
from pipeline.report import beside_paper, by_group, made_by, removal, sections, verdict
from pipeline.report.names import epochs, sparsity
from pipeline.report.results import Results
from pipeline.sections import Prune

FIGURES = {
    "accuracy": "Test accuracy against sparsity",
    "candidates": "Every soup beside its candidates",
    "corruptions": "Accuracy on corrupted images at the last phase",
    "groups": "Recall of each group at the last phase",
    "layers": "Sparsity of each layer at the last phase",
}

FILES = """\
Accuracies, recalls and sparsities are fractions in the CSV files: `results.csv` has one row per
method, phase and seed; `results_summary.csv` the mean, standard deviation (n - 1) and n of each
measure; `accuracy.csv`, `candidates.csv`, `corruptions.csv`, `groups.csv` and `layers.csv` what the
figures show; `training.csv` every epoch of every training; `metrics.json` what `dvc exp show`
lists.
"""


def page(results: Results) -> str:
    """Return the whole page; equal results give equal text."""
    parts = {
        "Test accuracy": sections.accuracy(results) + _image("accuracy"),
        "Is the soup better?": verdict.section(results),
        "Soups and their candidates": sections.candidates(results) + _image("candidates"),
        "Beside the paper": beside_paper.section(results),
        "The last phase": sections.last(results) + removal.section(results) + _image("layers"),
        "Corrupted images": sections.corruptions(results) + _image("corruptions"),
        "Groups": by_group.section(results) + _image("groups"),
        "Studies": _studies(results),
        "Missing": _missing(results),
        "Files": FILES,
    }
    body = "".join(f"\n## {title}\n\n{text}" for title, text in parts.items() if text)
    return _head(results) + made_by.line(results) + results.metric.said(body)


def _head(results: Results) -> str:
    p = results.params
    n = len(p.seeds)
    spread_note = "one seed, so no spread" if n == 1 else f"n = {n}; mean ± standard deviation"
    varied = p.retrain.vary.replace("_", " ")
    return (
        f"# Results: {p.recipe}\n\n"
        f"{p.about}.\n\n"
        f"m = {p.m} candidates that differ by {varied}; {p.phases} "
        f"{'phase' if p.phases == 1 else 'phases'} to {sparsity(p.target_sparsity)} sparsity; "
        f"{_pruning(p.prune)}; retraining by {p.retrain.schedule} "
        f"with {epochs(p.retrain.epochs)} a phase; network {p.network.name}, pretrained for "
        f"{epochs(p.pretrain.epochs)}. Seeds {', '.join(map(str, p.seeds))} ({spread_note}).\n"
    )


def _studies(results: Results) -> str:
    about = studies() if results.params.studies else {}
    return "".join(
        f"- [{name}](studies/{name}.md): {about[name]}\n" for name in sorted(results.params.studies)
    )


def _pruning(prune: Prune) -> str:
    if prune.structure == "filters":
        return "filters pruned by L2 norm, each layer alike"
    return f"{prune.criterion} pruning, {prune.allocation}"


def _missing(results: Results) -> str:
    if not results.missing:
        return ""
    names = ", ".join(f"`{name}`" for name in results.missing)
    return f"{len(results.missing)} stages have left no result: {names}.\n"


def _image(name: str) -> str:
    return f"\n![{FIGURES[name]}](figures/{name}.png)\n"
