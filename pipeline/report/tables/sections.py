"""The tables of results.md."""

from pipeline.report.labels import label, sparsity
from pipeline.report.results import ROLES, Results
from pipeline.report.statistics import over_seeds, reached, spread
from pipeline.report.tables import robustness
from pipeline.report.tables.markdown import NONE, number, table


def called(results: Results, method: str) -> str:
    """Return what a method is called, with its sparsity where that is not the planned one."""
    known = label(method, results.params.m)
    if (method, results.final) not in results.cells:
        return known
    found = reached(results, method, results.final)
    off = abs(found - results.phases[results.final]) > 1e-9
    return f"{known} (at {sparsity(found)})" if off else known


def scores(results: Results) -> str:
    """Return the test score of every method after every phase."""
    n = len(results.params.seeds)
    rows = []
    for method in results.methods:
        if method != "dense":
            cells = [
                number(over_seeds(results, method, phase, "test_score"), n)
                for phase in results.phases
            ]
            rows.append([called(results, method), *cells])
    headers = [f"phase {phase}: {sparsity(s)}" for phase, s in results.phases.items()]
    dense = number(over_seeds(results, "dense", 0, "test_score"), n)
    return f"In percent. The dense network has {dense}.\n\n" + table(["", *headers], rows)


def candidates(results: Results) -> str:
    """Return every average beside best and mean candidate, ensemble and distances."""
    n, m = len(results.params.seeds), results.params.m
    rows = []
    for method, phase, planned in results.planned:
        measures = ["test_score", *(f"{r}_test_score" for r in ROLES)]
        found = [over_seeds(results, method, phase, measure) for measure in measures]
        if any(found[1:]):
            included = over_seeds(results, method, phase, "included")
            rows.append(
                [
                    label(method, m),
                    f"{phase} ({sparsity(planned)})",
                    *(number(value, n) for value in found),
                    NONE if included is None else f"{included.mean:.3g} of {m}",
                    number(over_seeds(results, method, phase, "l2_mean"), n, scale=1),
                    number(over_seeds(results, method, phase, "angle_mean_degrees"), n, scale=1),
                ]
            )
    if not rows:
        return "No soup was compared with its candidates.\n"
    headers = [
        *("", "phase", "average", "best candidate", "mean candidate", "ensemble"),
        *("included", "L2 distance", "angle (degrees)"),
    ]
    return (
        f"Test {results.metric.label} in percent. `ensemble` averages the candidates' predictions "
        "and costs m networks; distance and angle are the means over pairs of candidates.\n\n"
        + table(headers, rows, names=2)
    )


def last(results: Results) -> str:
    """Return everything measured on the test set and the size of each method's final network."""
    n = len(results.params.seeds)
    rows = []
    for method in results.methods:
        phase = 0 if method == "dense" else results.final
        get = {
            measure: over_seeds(results, method, phase, measure)
            for measure in (
                *("test_score", "test_loss", "calibration_error", "worst_class"),
                *("speedup", "nonzeros", "stored_bytes"),
            )
        }
        rows.append(
            [
                called(results, method),
                number(get["test_score"], n),
                number(get["test_loss"], n, scale=1, digits=3),
                number(get["calibration_error"], n),
                number(get["worst_class"], n),
                number(get["speedup"], n, scale=1, digits=1),
                number(get["nonzeros"], n, scale=1, digits=0),
                number(get["stored_bytes"], n, scale=1e-3, digits=1),
            ]
        )
    headers = [
        *("", f"{results.metric.label} (%)", "loss", "calibration error (%)", "worst class (%)"),
        *("theoretical speed-up (x)", "weights kept", "stored (kB)"),
    ]
    return table(headers, rows)


def corruptions(results: Results) -> str:
    """Return the accuracy on corrupted images, the mean corruption error, and both by severity."""
    n = len(results.params.seeds)
    severities = robustness.mean_over(results.at_end("corruptions"), "severity")
    means, by_severity = [], []
    for method in results.methods:
        phase = 0 if method == "dense" else results.final
        found = [over_seeds(results, method, phase, f"ood_accuracy_{k}") for k in (15, 19)]
        if any(found):
            error = number(over_seeds(results, method, phase, "mce"), n, digits=1)
            name = called(results, method)
            means.append([name, *(number(value, n) for value in found), error])
            own = severities[severities["method"] == method]
            cells = [own.loc[own["severity"] == s, "accuracy"].tolist() for s in range(1, 6)]
            by_severity.append([name, *(number(spread(values), n) for values in cells)])
    if not means:
        return "Robustness was not evaluated.\n"
    headers = ["", "mean of 15 types (%)", "mean of 19 types (%)", "mCE (dense = 100)"]
    return (
        f"{robustness.images(results)} Means over severities 1 to 5; `corruptions.csv` has every "
        "type and severity. mCE is the mean over the 15 types of a network's errors beside those "
        "of the dense network of its seed; below 100 means fewer errors. (The benchmark divides by "
        "AlexNet's instead, so published values are other numbers.)\n\n"
        + table(headers, means)
        + "\nBy severity, the mean over all types in percent:\n\n"
        + table(["", *map(str, range(1, 6))], by_severity)
    )
