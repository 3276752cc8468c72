"""The table of test scores: a row per method, a column per phase."""

from pipeline.report.labels import label, sparsity
from pipeline.report.results import Results
from pipeline.report.statistics import mean_sparsity, over_seeds
from pipeline.report.tables.markdown import number, table


def section(results: Results) -> str:
    """Return the test score of every method after every phase."""
    n = len(results.params.seeds)
    rows = []
    for method in results.methods:
        if method != "dense":
            scores = [over_seeds(results, method, p, "test_score") for p in results.phases]
            rows.append([name(results, method), *(number(score, n) for score in scores)])
    headers = [f"phase {phase}: {sparsity(s)}" for phase, s in results.phases.items()]
    dense = number(over_seeds(results, "dense", 0, "test_score"), n)
    return f"In percent. The dense network has {dense}.\n\n" + table(["", *headers], rows)


def name(results: Results, method: str) -> str:
    """Return the label of a method, with its final sparsity where that is not the planned one."""
    text = label(method, results.params.m)
    if (method, results.final) not in results.cells:
        return text
    measured = mean_sparsity(results, method, results.final)
    differs = abs(measured - results.phases[results.final]) > 1e-9
    return f"{text} (at {sparsity(measured)})" if differs else text
