"""Facts of a model card, read from the metrics files of the model's stages."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.storage.atomic_files import read_json

WORDS = {"mean_iou": "mean IoU", "bleu": "BLEU", "iou": "IoU"}
SCORES = {"classification": "accuracy", "segmentation": "mean_iou", "translation": "bleu"}
TASKS = {  # the Hub's names
    "classification": "image-classification",
    "segmentation": "image-segmentation",
    "translation": "translation",
}


class Worst(NamedTuple):
    """The worst group of a set of groups: its score is called ``metric``."""

    group_set: str
    group: str
    metric: str
    value: float


@dataclass(frozen=True)
class Facts:
    """The contents of a model card; scores and sparsities are fractions in [0, 1].

    Args:
        name: of the model.
        network: a file of pipeline/models or another network.name.
        data: meta.json of the prepared data.
        metrics: of the model: those of its folder and of the stages that measure it.
        dense: the same of the dense network; empty if there is none.
        merge: merge.json of a soup, else empty.
        structure: weights, filters or N:M, as prune.structure.
        small_macs: multiply-accumulates without the pruned filters, where filters are pruned.
        files: bytes of each file.
        usage: by label of a format, Python that predicts.
        scores: test scores of formats that are not equal to PyTorch's, by label.
        latency: milliseconds of a pass by batch size and label, of the model and the dense network.
        machine: the processor on which latency was measured.
    """

    name: str
    network: str
    data: Mapping[str, Any]
    metrics: Mapping[str, Any]
    dense: Mapping[str, Any] = field(default_factory=dict)
    merge: Mapping[str, Any] = field(default_factory=dict)
    structure: str = "weights"
    small_macs: int | None = None
    files: Mapping[str, int] = field(default_factory=dict)
    usage: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    latency: Mapping[int, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    machine: str = ""

    @property
    def task(self) -> str:
        """The task, a file of pipeline/tasks."""
        return str(self.data["task"])

    @property
    def metric(self) -> str:
        """The key of the task's score."""
        return SCORES.get(self.task, "accuracy")

    def worst(self, metrics: Mapping[str, Any]) -> Iterator[Worst]:
        """Yield the worst group of each set of groups in ``metrics``."""
        key = "iou" if self.metric == "mean_iou" else "recall"
        for name, group_set in metrics.get("groups", {}).items():
            yield Worst(name, group_set["worst_group"], key, group_set[f"worst_{key}"])


def words(metric: str) -> str:
    """Return a metric in words."""
    return WORDS.get(metric, metric.replace("_", " "))


def read_facts(
    model: Path, data: Path, network: str, metrics: Sequence[Path], dense: Sequence[Path]
) -> Facts:
    """Return the facts in the metrics files of stages.

    Args:
        model: the model's folder.
        data: the folder of the prepared data.
        network: network.name.
        metrics: the folders of the stages that measure the model.
        dense: the folder of the dense network, and those of the stages that measure it.
    """
    meta, merge = read_json(data / "meta.json"), model / "merge.json"
    return Facts(
        name=f"{meta['name']}-{model.name}",
        network=network,
        data=meta,
        metrics=_joined([model, *metrics]),
        dense=_joined(dense),
        merge=read_json(merge) if merge.exists() else {},
    )


def _joined(folders: Sequence[Path]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for folder in folders:
        if (folder / "metrics.json").exists():
            joined |= read_json(folder / "metrics.json")
    return joined
