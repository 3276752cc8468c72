"""The artifacts that are up to date: made by today's graph from today's inputs, and unchanged."""

from contextlib import chdir, closing
from pathlib import Path

from pipeline.run.dvc_graph import DvcGraph


def current(root: Path) -> dict[str, str]:
    """Return the DVC hash of every artifact that ``root``/stages/dvc.yaml makes today, by stage.

    A stage counts where ``dvc status`` finds nothing changed: its command, its inputs (code, data,
    other artifacts) and its output are those of the lock file. All stages that it reads must count
    too. Files whose time, size and inode are known are not hashed again.
    """
    root = root.resolve()
    with chdir(root), closing(DvcGraph(root)) as graph:
        return graph.current()
