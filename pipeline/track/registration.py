"""Registration: a soup that becomes a version of a registered model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Registration:
    """A soup, and the registered model whose next version it is.

    Args:
        name: of the registered model.
        model: the soup's folder.
        data: that of its data set.
        digest: the DVC hash of ``model``; a version with the same one is kept.
        tags: of the version.
        description: Markdown, shown on the pages of the version and of the registered model.
        code: the files outside this package that may be executed to build the network.
    """

    name: str
    model: Path
    data: Path
    digest: str
    tags: Mapping[str, str]
    description: str = ""
    code: Sequence[str] = ()
