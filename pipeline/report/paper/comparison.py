"""Compares the results with the paper's numbers where all settings agree."""

from collections.abc import Iterator

from pipeline.config.experiment import Experiment
from pipeline.report.labels import epochs, label, sparsity
from pipeline.report.paper import lookup
from pipeline.report.paper.table_15 import NOTE
from pipeline.report.results import BEST_BY_TEST, Results
from pipeline.report.statistics import Spread, over_seeds
from pipeline.report.tables.corruptions import synthetic
from pipeline.report.tables.markdown import NONE, number, signed, table

_ROLES = [  # in the paper's tables, our measure, suffix of the row's name
    ("model", "test_score", ""),
    ("best_candidate", "best_candidate_test_score", ", best candidate (by validation)"),
    ("best_candidate", BEST_BY_TEST, ", best candidate (by test, as in the paper)"),
    ("mean_candidate", "mean_candidate_test_score", ", mean candidate"),
]


def section(results: Results) -> str:
    """Return the table of common rows, or the reason why there is none."""
    params = results.params
    if params.paper is None:
        return f"The paper has no results on `{params.recipe_name}`.\n"
    experiment = f"{params.paper.dataset} / {params.paper.arch}"
    reasons = lookup.departures(params)
    if reasons:
        return f"The paper's rows on {experiment} are another experiment: {'; '.join(reasons)}.\n"
    rows = list(_rows(results))
    text = table(["", "phase", "ours (%)", "paper (%)", "difference", "paper's table"], rows, 2)
    if lookup.same_setting(params).empty and not lookup.published(params).empty:
        text += f"\nThere are no other common rows; {_offer(params)}.\n"
    return text + "".join(f"\n{note}\n" for note in _notes(results))


def _notes(results: Results) -> Iterator[str]:
    paper = results.params.paper
    if synthetic(results):
        yield "Generated corruptions are not the official set, so they are not compared."
    elif results.rows["ood_accuracy_19"].notna().any():
        yield (
            "The paper does not say whether its mean is over 15 or 19 corruptions, so both are "
            "compared."
        )
    if paper is not None and paper.dataset == "Celeb-A":
        yield f"{NOTE}Table 15 is compared in the study `subgroups`."
    if paper is not None and paper.dataset == "WMT16":
        yield (
            "The paper does not say from which weights its T5 started, nor how it measured BLEU."
        )


def _rows(results: Results) -> Iterator[list[str]]:
    params = results.params
    for method, phase, planned in results.planned:
        place = f"{phase} ({sparsity(planned)})" if phase else NONE
        for role, measure, suffix in _ROLES:
            ours = over_seeds(results, method, phase, measure)
            theirs = lookup.lookup(params, method, phase, role)
            if ours is not None and theirs is not None:
                name = label(method, params.m) + suffix
                yield _row(results, name, place, ours, theirs)
        for types in () if synthetic(results) else (15, 19):
            ours = over_seeds(results, method, phase, f"ood_accuracy_{types}")
            theirs = lookup.lookup(params, method, phase, ood=True)
            if ours is not None and theirs is not None:
                name = f"{label(method, params.m)}, mean of {types} corruptions"
                yield _row(results, name, place, ours, theirs)


def _row(
    results: Results, name: str, place: str, ours: Spread, theirs: lookup.Reference
) -> list[str]:
    printed = f"{theirs.mean:.2f}" + (f" ± {theirs.std:.2f}" if theirs.std is not None else "")
    score = number(ours, len(results.params.seeds))
    return [name, place, score, printed, signed(100 * ours.mean - theirs.mean), str(theirs.table)]


def _offer(params: Experiment) -> str:
    """Return the settings of the paper's tables on this data set and network, in words."""
    keys = ["n_phases", "target_sparsity", "schedule", "retrain_epochs"]
    settings = [
        f"{int(row['n_phases'])} {'phase' if row['n_phases'] == 1 else 'phases'} to "
        f"{row['target_sparsity']:g} % by {_schedule(row['schedule'])} with "
        f"{epochs(int(row['retrain_epochs']))} a phase"
        for _, row in lookup.published(params)[keys].drop_duplicates().iterrows()
    ]
    return f"the paper's tables have {', '.join(settings)}"


def _schedule(name: object) -> str:
    return name if isinstance(name, str) else "a schedule that it does not name"  # Table 8
