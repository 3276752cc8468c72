"""What pruned filters save once they are removed: measured times and sizes beside the theory."""

from pipeline.report.labels import label
from pipeline.report.results import Results
from pipeline.report.statistics import over_seeds
from pipeline.report.tables.markdown import number, table

NOTE = """
Measured on one CPU thread: the median time of a pass of the network with zeros over that of the
network without the filters, which ran in turns, for one image and for 64. The theoretical speed-up
counts the zeros of each layer; what is removed also takes the inputs that read them.
"""


def section(results: Results) -> str:
    """Return speed and size of each method's last network without its filters, or nothing."""
    if not results.shrunk:
        return ""
    n = len(results.params.seeds)
    rows = []
    for method in results.methods:
        get = {
            measure: over_seeds(results, method, results.final, measure)
            for measure in (
                *("speedup", "macs_speedup", "measured_speedup_1", "measured_speedup_64"),
                *("latency_masked_ms_1", "latency_removed_ms_1"),
                *("nonzeros", "parameters_removed", "stored_bytes", "bytes_removed"),
            )
        }
        if get["parameters_removed"] is None:
            continue
        rows.append(
            [
                label(method, results.params.m),
                *(number(get[m], n, scale=1, digits=1) for m in list(get)[:2]),
                *(number(get[m], n, scale=1) for m in list(get)[2:6]),
                *(number(get[m], n, scale=1, digits=0) for m in list(get)[6:8]),
                *(number(get[m], n, scale=1e-3, digits=1) for m in list(get)[8:]),
            ]
        )
    headers = [
        *("filters removed", "theoretical speed-up (x)", "of the operations left (x)"),
        *("measured, 1 image (x)", "measured, 64 images (x)", "masked, 1 image (ms)"),
        *("removed, 1 image (ms)", "weights kept", "parameters left"),
        *("masked, stored (kB)", "removed, stored (kB)"),
    ]
    return f"\n{table(headers, rows)}{NOTE}\n{_layers(results)}"


def _layers(results: Results) -> str:
    """Return how many filters each layer keeps, the same in every method and seed."""
    found = results.tables["filters"].drop_duplicates(["layer", "kept", "filters"])
    rows = [
        [str(row["layer"]), str(row["kept"]), str(row["filters"])] for _, row in found.iterrows()
    ]
    return table(["layer", "filters kept", "of"], rows)
