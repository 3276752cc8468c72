"""Model card: the Markdown body; its metadata is in pipeline/export/metadata.py."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.export.facts import Facts, words

PAPER = "https://arxiv.org/abs/2306.16788"
KINDS = {
    "classification": "image classification",
    "segmentation": "semantic segmentation",
    "translation": "translation",
}


def body(facts: Facts) -> str:
    """Return the text of the model card; a section without numbers is left out."""
    parts = [
        f"# {facts.name}",
        _about(facts),
        "## Measurements",
        _table(["", "this model", *(["dense network"] if facts.dense else [])], _rows(facts)),
        *_notes(facts),
    ]
    if facts.latency:
        parts += ["## Latency", *_latency(facts)]
    if facts.files:
        files = [[f"`{name}`", f"{size:,}"] for name, size in facts.files.items()]
        parts += ["## Files", _table(["file", "bytes"], files)]
    if facts.usage:
        parts += ["## Use", *_usage(facts)]
    return "\n\n".join(parts) + "\n"


def description(facts: Facts) -> str:
    """Return the card as MLflow shows it: below a heading of its own, in tables without spacing."""
    text = body(facts).removeprefix(f"# {facts.name}\n\n")
    return re.sub(r" \| (?!--:)(?=[^\s|])", " | &emsp;", text)


def _about(facts: Facts) -> str:
    data, classes = facts.data["name"], len(facts.data["classes"])
    sparsity = f"{100 * facts.metrics['sparsity']:.2f} %"
    text = (
        f"`{facts.network}` for {KINDS.get(facts.task, facts.task)} on `{data}` ({classes} "
        f"{'classes' if facts.task != 'translation' else 'tokens'}). {sparsity} of its prunable "
        "weights are zero."
    )
    if facts.small_macs is not None:
        text += " Whole filters were pruned, and the files hold the smaller network without them."
    if ":" in facts.structure:
        n, m = facts.structure.split(":")
        text += (
            f" Pruned layers have the pattern {facts.structure}: {n} of every {m} consecutive "
            "weights along the input channels are kept."
        )
    if facts.merge:
        included, all_of_them = len(facts.merge["included"]), len(facts.merge["weights"])
        text += (
            f" It is a [sparse model soup]({PAPER}) of {included} of {all_of_them} retrained "
            f"networks with one mask (merge rule `{facts.merge['rule']}`)."
        )
    return text


def _rows(facts: Facts) -> list[list[str]]:
    """Return the rows of measurements, with a cell for the dense network where there is one."""
    both = [facts.metrics, *([facts.dense] if facts.dense else [])]
    rows = [
        [f"{words(facts.metric)}, {name} (%)", *(_percent(each.get(key)) for each in both)]
        for name, key in (("validation", f"val_{facts.metric}"), ("test", f"test_{facts.metric}"))
    ]
    rows += [
        [f"{words(facts.metric)}, test, {label} (%)", _percent(score), *[""] * (len(both) - 1)]
        for label, score in facts.scores.items()
    ]
    for key, count in (("mean_15", 15), ("mean_19", 19)):
        label = f"accuracy on corrupted images, {count} kinds (%)"
        rows.append([label, *(_percent(each.get(key)) for each in both)])
    rows += _worst_rows(facts, both)
    rows += [
        ["multiply-accumulates", *(_count(each.get("macs")) for each in both)],
        ["multiply-accumulates with a weight != 0", *(_count(e.get("sparse_macs")) for e in both)],
        ["parameters", *(_count(each.get("parameters")) for each in both)],
        ["parameters that are not pruned", *(_count(each.get("nonzeros")) for each in both)],
    ]
    if facts.small_macs is not None:
        macs = [_count(facts.small_macs), *[""] * (len(both) - 1)]
        rows.append(["multiply-accumulates without the pruned filters", *macs])
    return [row for row in rows if row[1]]


def _worst_rows(facts: Facts, both: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    of_each = [{worst.group_set: worst for worst in facts.worst(metrics)} for metrics in both]
    for name, worst in of_each[0].items():
        cells = [
            f"{_percent(w[name].value)} ({w[name].group})" if name in w else "" for w in of_each
        ]
        yield [f"worst {words(worst.metric)} of a {name} (%)", *cells]


def _notes(facts: Facts) -> Iterator[str]:
    if "about" in facts.metrics:
        official = "" if not facts.metrics.get("synthetic") else " (synthetic)"
        yield f"Corrupted images: {facts.metrics['about']}{official}, five severities of each kind."
    if facts.scores:
        yield (
            "The 8-bit network was calibrated on training images. The other formats equal PyTorch "
            "to 1e-4 in every probability."
        )


def _latency(facts: Facts) -> Iterator[str]:
    yield (
        f"Median milliseconds of a pass on one thread of {facts.machine}, from uint8 images to "
        "probabilities. All formats alternate with the dense network in the same format. Times are "
        "CPU times of the process."
    )
    sizes = list(facts.latency)
    head = ["", *(text for size in sizes for text in (f"batch {size}", "dense network"))]
    labels = list(facts.latency[sizes[0]])
    rows = [
        [label, *(_digits(time) for size in sizes for time in facts.latency[size][label])]
        for label in labels
    ]
    yield _table(head, rows)


def _usage(facts: Facts) -> Iterator[str]:
    shape = " x ".join(map(str, facts.data["shape"]))
    if facts.task == "translation":
        yield f"`images` are token ids, int64 [N, {shape.replace(' x ', ', ')}]."
    else:
        yield (
            f"`images` is a uint8 array [N, {shape.replace(' x ', ', ')}] of pixels from 0 to 255; "
            "normalisation and softmax are part of the graph."
        )
    for label, code in facts.usage.items():
        yield f"{label}:\n\n```python\n{code}\n```"


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f}"


def _digits(number: float) -> str:
    """Return three significant digits, zeros at the end included; from 100 on whole numbers."""
    return f"{number:,.0f}" if number >= 100 else f"{number:#.3g}".removesuffix(".")


def _count(number: float | None) -> str:
    return "" if number is None else f"{round(number):,}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose first column is text and whose others are numbers."""
    line = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, line, *rows))
