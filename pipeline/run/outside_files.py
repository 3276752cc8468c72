"""Stages that read files outside the graph, which need not be on all nodes of a cluster."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pipeline.run.dvc_graph import DvcGraph

KEY = "outside"  # of a stage's `meta`; it lists the files


class Reader(NamedTuple):
    """A stage, whether it uses a GPU where there is one, and the files that it reads."""

    name: str
    gpu: bool
    paths: tuple[str, ...]


def paths(stage: Any) -> tuple[str, ...]:
    """Return the files outside the graph that a DVC stage reads."""
    return tuple((stage.meta or {}).get(KEY, ()))


def readers(graph: "DvcGraph") -> Iterator[Reader]:
    """Yield the stages that read such files and are not up to date."""
    current = graph.up_to_date()
    for name, stage in graph.stages.items():
        if name not in current and paths(stage):
            yield Reader(name, name in graph.gpu, paths(stage))
