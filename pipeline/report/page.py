"""results.md: the page of results."""

from pipeline import registry
from pipeline.config.experiment import Experiment
from pipeline.plan.build import studies
from pipeline.prune.pattern import parse
from pipeline.report import soup_comparison
from pipeline.report.labels import epochs, pruning_rules, sparsity
from pipeline.report.metric import Metric, capital
from pipeline.report.paper import comparison
from pipeline.report.results import Results
from pipeline.report.tables import (
    candidates,
    corruptions,
    empty_layers,
    groups,
    last_phase,
    made_by,
    ranking,
    removal,
    scores,
)
from pipeline.report.tables.markdown import not_run

FIGURES = {
    "accuracy": "Test {score} against sparsity",
    "candidates": "Each soup and its candidates",
    "corruptions": "{score} on corrupted images in the last phase",
    "groups": "{group} of each group in the last phase",
    "layers": "Sparsity of each layer in the last phase",
}

SHOWN = 8  # dense layers that are named

FILES = """\
In the CSV files {scores}, {group} and sparsity are fractions; `test_score` and `val_score` are
{score}, and a group's `score` is {group}. `results.csv` has one row per method, phase and seed, and
`results_summary.csv` the mean, standard deviation (n - 1) and n of each measure. `accuracy.csv`,
`candidates.csv`, `corruptions.csv`, `groups.csv` and `layers.csv` have the data of the figures,
`training.csv` has every epoch of every training, and `metrics.json` the numbers of `dvc exp show`.
"""


def page(results: Results) -> str:
    """Return the whole page; equal results give equal text."""
    metric = results.metric
    parts = {
        "Methods at an equal budget": ranking.section(results),
        f"Test {metric.label}": scores.section(results) + _image("accuracy", metric),
        "Is the soup better?": soup_comparison.section(results),
        "Soups and their candidates": candidates.section(results) + _image("candidates", metric),
        "Comparison with the paper": comparison.section(results),
        "The last phase": last_phase.section(results)
        + empty_layers.section(results)
        + removal.section(results)
        + _image("layers", metric),
        "Corrupted images": corruptions.section(results) + _image("corruptions", metric),
        "Groups": groups.section(results) + _image("groups", metric),
        "Studies": _studies(results),
        "Missing": _missing(results),
        "Files": FILES.format(scores=metric.plural, group=metric.group, score=metric.label),
    }
    body = "".join(f"\n## {title}\n\n{text}" for title, text in parts.items() if text)
    return _head(results) + made_by.line(results) + body


def _head(results: Results) -> str:
    p = results.params
    n = len(p.seeds)
    spread_note = "one seed, so no deviation" if n == 1 else f"n = {n}; mean ± standard deviation"
    network = registry.label("models", p.network.name)
    varied = p.retrain.vary.replace("_", " ")
    return (
        f"# Results: {p.recipe_name}\n\n"
        f"{p.about}.\n\n"
        f"m = {p.m} candidates that differ by {varied}; {p.phases} "
        f"{'phase' if p.phases == 1 else 'phases'} to {sparsity(p.target_sparsity)} sparsity; "
        f"{_pruning(results)}; retraining by {p.retrain.schedule} "
        f"{_length(p)}{_options(p)}; network {network}, pretrained for "
        f"{epochs(p.pretrain.epochs)}. Seeds {', '.join(map(str, p.seeds))} ({spread_note}).\n"
    )


def _options(params: Experiment) -> str:
    """Return the options of retraining that are on, after a comma each."""
    retrain = params.retrain
    texts = {
        f", averaged by {retrain.average.upper()}": retrain.average != "none",
        f", {retrain.sam.upper()} (rho {retrain.rho:g})": retrain.sam != "none",
        f", distilled from the dense network (weight {retrain.distill:g}, temperature "
        f"{retrain.temperature:g})": bool(retrain.distill),
    }
    return "".join(text for text, on in texts.items() if on)


def _length(params: Experiment) -> str:
    if params.budget is not None:
        return f"within a budget of {epochs(params.budget)} for each method"
    return f"with {epochs(params.retrain.epochs)} a phase"


def _studies(results: Results) -> str:
    about = studies() if results.params.studies else {}
    return "".join(
        f"- [{name}](studies/{name}.md): {about[name]}\n" for name in sorted(results.params.studies)
    )


def _pruning(results: Results) -> str:
    prune = results.params.prune
    if prune.structure == "filters":
        return "filters pruned by L2 norm, an equal share of each layer"
    criterion, allocation = pruning_rules(prune)
    if pattern := parse(prune.structure):
        return f"{criterion} pruning, {pattern} along input channels{_dense_layers(results)}"
    return f"{criterion} pruning, {allocation}"


def _dense_layers(results: Results) -> str:
    """Return the sparsity of all prunable weights and the layers that N:M pruning leaves dense."""
    names = [name.removesuffix(".weight") for name in results.dense_layers]
    if not names or results.sparsity is None:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    layers = "1 layer stays" if len(names) == 1 else f"{len(names)} layers stay"
    return (
        f" ({sparsity(results.sparsity)} of all prunable weights, as {layers} dense: "
        f"{', '.join(names[:SHOWN])}{more})"
    )


def _missing(results: Results) -> str:
    if not results.missing:
        return ""
    names = ", ".join(f"`{name}`" for name in results.missing)
    return f"{not_run(len(results.missing))}: {names}.\n"


def _image(name: str, metric: Metric) -> str:
    about = capital(FIGURES[name].format(score=metric.label, group=metric.group))
    return f"\n![{about}](figures/{name}.png)\n"
