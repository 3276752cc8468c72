"""Registration: a soup that becomes a version of a registered model."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CODE = ("export/formats/sparse.py", "export/served.py", "track/export.py", "track/pyfunc_model.py")


@dataclass(frozen=True)
class Registration:
    """A soup, and the registered model whose next version it is.

    Args:
        name: of the registered model.
        model: the soup's folder.
        data: that of its data set.
        digest: the DVC hash of ``model``.
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

    def hashes(self) -> dict[str, str]:
        """Return the tags of which an equal version has the same: model, and code and data."""
        inference = sorted([*PACKAGE.glob("inference/*.py"), PACKAGE / "inference/costs.csv"])
        files = *(PACKAGE / name for name in CODE), *inference, Path(self.data, "meta.json")
        export = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        return {"model_hash": self.digest, "export_hash": export[:16]}
