"""Our numbers beside the paper's, where everything that decides a row agrees."""

from collections.abc import Iterator

from pipeline.config.experiment import Experiment
from pipeline.report.labels import epochs, label, sparsity
from pipeline.report.paper import lookup
from pipeline.report.paper.table_15 import NOTE
from pipeline.report.results import BEST_BY_TEST, Results
from pipeline.report.statistics import Spread, over_seeds
from pipeline.report.tables.markdown import NONE, number, signed, table
from pipeline.report.tables.robustness import synthetic

_ROLES = [  # as the paper's tables have them, our measure, and how it is called
    ("model", "test_score", ""),
    ("best_candidate", "best_candidate_test_score", ", best candidate (by validation)"),
    ("best_candidate", BEST_BY_TEST, ", best candidate (by test, as in the paper)"),
    ("mean_candidate", "mean_candidate_test_score", ", mean candidate"),
]


def section(results: Results) -> str:
    """Return the table of shared rows, or why there is none."""
    params = results.params
    if params.paper is None:
        return f"The paper has no results on `{params.recipe}`.\n"
    here = f"{params.paper.dataset} / {params.paper.arch}"
    reasons = lookup.departures(params)
    if reasons:
        return f"The paper's rows on {here} are another experiment: {'; '.join(reasons)}.\n"
    rows = list(_rows(results))
    text = table(["", "phase", "ours (%)", "paper (%)", "difference", "paper's table"], rows, 2)
    if lookup.same_setting(params).empty and not lookup.published(params).empty:
        text += f"\nNothing else is shared; {_offer(params)}.\n"
    notes = [
        "The paper does not say how many of the 19 corruptions its mean takes, so both stand here."
        if not synthetic(results) and results.rows["ood_accuracy_19"].notna().any()
        else "",
        "Generated corruptions are not the official set, so they stand beside no number of the "
        "paper."
        if synthetic(results)
        else "",
        f"{NOTE}Table 15 stands beside the study `subgroups`."
        if params.paper.dataset == "Celeb-A"
        else "",
        "The paper does not say which weights its T5 started from, nor how its BLEU was taken."
        if params.paper.dataset == "WMT16"
        else "",
    ]
    return text + "".join(f"\n{note}\n" for note in notes if note)


def _rows(results: Results) -> Iterator[list[str]]:
    params = results.params
    for method, phase, planned in results.planned:
        place = f"{phase} ({sparsity(planned)})" if phase else NONE
        for role, measure, suffix in _ROLES:
            found = over_seeds(results, method, phase, measure)
            theirs = lookup.lookup(params, method, phase, role)
            if found is not None and theirs is not None:
                name = label(method, params.m) + suffix
                yield _row(results, name, place, found, theirs)
        for types in () if synthetic(results) else (15, 19):
            found = over_seeds(results, method, phase, f"ood_accuracy_{types}")
            theirs = lookup.lookup(params, method, phase, ood=True)
            if found is not None and theirs is not None:
                name = f"{label(method, params.m)}, mean of {types} corruptions"
                yield _row(results, name, place, found, theirs)


def _row(
    results: Results, name: str, place: str, found: Spread, theirs: lookup.Reference
) -> list[str]:
    printed = f"{theirs.mean:.2f}" + (f" ± {theirs.std:.2f}" if theirs.std is not None else "")
    ours = number(found, len(results.params.seeds))
    return [name, place, ours, printed, signed(100 * found.mean - theirs.mean), str(theirs.table)]


def _offer(params: Experiment) -> str:
    """Say which settings the paper's tables have for this data set and network."""
    keys = ["n_phases", "target_sparsity", "schedule", "retrain_epochs"]
    settings = lookup.published(params)[keys].drop_duplicates()
    found = [
        f"{int(row['n_phases'])} {'phase' if row['n_phases'] == 1 else 'phases'} to "
        f"{row['target_sparsity']:g} % by {_schedule(row['schedule'])} with "
        f"{epochs(int(row['retrain_epochs']))} a phase"
        for _, row in settings.iterrows()
    ]
    return f"the paper's tables have {', '.join(found)}"


def _schedule(name: object) -> str:
    return name if isinstance(name, str) else "a schedule that it does not name"  # Table 8
