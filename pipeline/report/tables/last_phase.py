"""The table of final networks: scores on the test set, and size."""

from pipeline.report.results import Results
from pipeline.report.statistics import over_seeds
from pipeline.report.tables.markdown import number, table
from pipeline.report.tables.scores import name


def section(results: Results) -> str:
    """Return the test measures and the size of each method's network of the last phase."""
    n = len(results.params.seeds)
    rows = []
    for method in results.methods:
        phase = 0 if method == "dense" else results.final
        values = {
            measure: over_seeds(results, method, phase, measure)
            for measure in (
                *("test_score", "test_loss", "calibration_error", "worst_class"),
                *("speedup", "nonzeros", "stored_bytes"),
            )
        }
        rows.append(
            [
                name(results, method),
                number(values["test_score"], n),
                number(values["test_loss"], n, scale=1, digits=3),
                number(values["calibration_error"], n),
                number(values["worst_class"], n),
                number(values["speedup"], n, scale=1, digits=1),
                number(values["nonzeros"], n, scale=1, digits=0),
                number(values["stored_bytes"], n, scale=1e-3, digits=1),
            ]
        )
    headers = [
        *("", f"{results.metric.label} (%)", "loss", "calibration error (%)", "worst class (%)"),
        *("theoretical speed-up (x)", "weights kept", "stored (kB)"),
    ]
    return table(headers, rows)
