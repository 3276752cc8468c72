"""metrics.json: the few numbers per experiment that ``dvc exp show`` lists."""

from typing import Any

from pipeline.plan.declared import declared
from pipeline.report.results import Results
from pipeline.report.soup_comparison import comparisons
from pipeline.report.statistics import Spread, over_seeds


def headline(results: Results) -> dict[str, Any]:
    """Return each method's scores in the last phase, and the gains of each soup.

    All numbers are means over the seeds, rounded to six decimals; scores are fractions, and
    ``metric`` names them. Of a soup:

        p1, p2, ...              the test scores of its earlier phases
        over_best_candidate      its gain over its best candidate, in the last phase
        over_NAME                its gain over the first of its BASELINES (`pipeline.plan.declared`)

    Data with a few named groups adds the recall of each, their mean and the mean over classes.
    Measures without a value are left out.
    """
    metrics: dict[str, Any] = {"metric": results.metric.name, "seeds": len(results.params.seeds)}
    if results.phases:
        metrics["sparsity"] = round(results.phases[results.final], 6)
    for method in results.methods:
        metrics[method] = _scores(results, method)
    for comparison in comparisons(results):
        shown = ("best_candidate", *declared(comparison.soup).baselines[:1])
        if comparison.phase == results.final and comparison.rival in shown:
            gain = round(comparison.difference.mean, 6)
            metrics[comparison.soup][f"over_{comparison.rival}"] = gain
    return metrics


def _scores(results: Results, method: str) -> dict[str, float]:
    """Return the means of a method in its last phase, and a soup's in its earlier phases."""

    def at(phase: int, measure: str) -> Spread | None:
        return over_seeds(results, method, phase, measure)

    last = 0 if method == "dense" else results.final
    values = {
        "test_score": at(last, "test_score"),
        "ood_accuracy": at(last, "ood_accuracy_19") or at(last, "ood_accuracy_15"),
        "test_worst_group": at(last, "test_worst_group"),
    }
    if results.by_group:
        values |= {name: at(last, name) for name in ("test_macro_accuracy", *results.by_group)}
    if method in results.soups:
        earlier = [phase for phase in results.phases if phase < results.final]
        values |= {f"p{phase}": at(phase, "test_score") for phase in earlier}
    return {name: round(value.mean, 6) for name, value in values.items() if value is not None}
