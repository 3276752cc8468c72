"""The tables of removed filters: measured times and sizes, and the theoretical speed-up."""

from pipeline.report.labels import label
from pipeline.report.results import Results
from pipeline.report.statistics import over_seeds
from pipeline.report.tables.markdown import Columns, column_headers, column_numbers, table

NOTE = """
Times are measured on one CPU thread: the median time of a forward pass with zeroed filters divided
by that without them, for batches of 1 and of 64 images; the two networks alternate. The theoretical
speed-up counts the zeros of each layer. Removal also takes away the inputs that read a filter.
"""
_COLUMNS: Columns = {
    "speedup": ("theoretical speed-up (x)", 1, 1),
    "macs_speedup": ("of the operations left (x)", 1, 1),
    "measured_speedup_1": ("measured, 1 image (x)", 1, 2),
    "measured_speedup_64": ("measured, 64 images (x)", 1, 2),
    "latency_masked_ms_1": ("masked, 1 image (ms)", 1, 2),
    "latency_removed_ms_1": ("removed, 1 image (ms)", 1, 2),
    "nonzeros": ("weights kept", 1, 0),
    "parameters_removed": ("parameters left", 1, 0),
    "stored_bytes": ("masked, stored (kB)", 1e-3, 1),
    "bytes_removed": ("removed, stored (kB)", 1e-3, 1),
}


def section(results: Results) -> str:
    """Return speed and size of each method's last network without its filters; "" without any."""
    if not results.shrunk:
        return ""
    n = len(results.params.seeds)
    rows = []
    for method in results.methods:
        values = {key: over_seeds(results, method, results.final, key) for key in _COLUMNS}
        if values["parameters_removed"] is not None:
            cells = column_numbers(_COLUMNS, values.__getitem__, n)
            rows.append([label(method, results.params.m), *cells])
    text = table(["filters removed", *column_headers(_COLUMNS)], rows)
    return f"\n{text}{NOTE}\n{_layers(results)}"


def _layers(results: Results) -> str:
    """Return the number of filters that each layer keeps, equal for all methods and seeds."""
    layers = results.tables["filters"].drop_duplicates(["layer", "kept", "filters"])
    rows = [
        [str(row["layer"]), str(row["kept"]), str(row["filters"])] for _, row in layers.iterrows()
    ]
    return table(["layer", "filters kept", "of"], rows)
