"""metrics.json: the few numbers that tell two experiments apart in ``dvc exp show``."""

from collections.abc import Iterable
from typing import Any

from pipeline.report.results import Results
from pipeline.report.soup_comparison import comparisons
from pipeline.report.statistics import Spread, over_seeds

_PLAIN = {"imp", "imp_reprune"}  # their own numbers stand beside the soup's and say enough


def headline(results: Results) -> dict[str, Any]:
    """Return means over seeds, six decimals: each method's last phase, and the soups' gains.

    Scores are fractions, and ``metric`` names them. ``p1``, ``p2``, ... are a soup's test scores
    in earlier phases; ``over_best_candidate`` and ``over_imp_mx`` its gains in the last. Data with
    a few named groups adds each group's recall, their mean and the mean over classes. What was
    not measured is left out.
    """
    metrics: dict[str, Any] = {"metric": results.metric.name, "seeds": len(results.params.seeds)}
    if results.phases:
        metrics["sparsity"] = round(results.phases[results.final], 6)
    for method in results.methods:
        phase = 0 if method == "dense" else results.final
        values = {
            "test_score": over_seeds(results, method, phase, "test_score"),
            "ood_accuracy": over_seeds(results, method, phase, "ood_accuracy_19")
            or over_seeds(results, method, phase, "ood_accuracy_15"),
            "test_worst_group": over_seeds(results, method, phase, "test_worst_group"),
        }
        for column in ("test_macro_accuracy", *results.by_group) if results.by_group else ():
            values[column] = over_seeds(results, method, phase, column)
        if method in results.soups:
            for earlier in results.phases:
                if earlier < results.final:
                    found = over_seeds(results, method, earlier, "test_score")
                    values[f"p{earlier}"] = found
        metrics[method] = _means(values.items())
    for made in comparisons(results):
        if made.phase == results.final and made.rival not in _PLAIN:
            metrics[made.soup][f"over_{made.rival}"] = round(made.difference.mean, 6)
    return metrics


def _means(values: Iterable[tuple[str, Spread | None]]) -> dict[str, float]:
    return {name: round(found.mean, 6) for name, found in values if found is not None}
