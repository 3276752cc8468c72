"""Where corrupted test images come from: official arrays, official image files, or made here."""

from typing import TYPE_CHECKING

from pipeline.evaluate.corruptions.constants import ARCHIVES, NAMES_19
from pipeline.plan.plan import artifact
from pipeline.plan.raw_data import checkouts, fingerprint

if TYPE_CHECKING:
    from pipeline.plan.work import Planner


def corrupted(work: "Planner") -> tuple[str, tuple[str, ...]]:
    """Return the folder of the corrupted set, and what of it lies outside the graph.

    Arrays, a few large files, are a dependency of every evaluation. Image files, which are
    millions, are listed by a stage, and evaluations depend on the list; a hash over their names
    and sizes is in that stage's command, so that another set is listed anew.
    """
    official, data = work.settings.evaluate.corruptions_path, artifact(work.data())
    if official is None:
        return artifact(work.add("corruptions", "corrupt", {"data": data}, shared=True)), ()
    if not _image_files(official):
        return official, (official,)
    flags = {"data": data, "folder": official, "listing": work.plan.once(fingerprint, official)}
    node = work.add("corruptions", "list_corruptions", flags, shared=True)
    work.plan.nodes[node].unwatched = (official,)
    return artifact(node), ()


def _image_files(folder: str) -> bool:
    """Say whether ``folder`` is laid out as ImageNet-C, here or in the main checkout."""
    known = (*NAMES_19, *ARCHIVES)
    return any((home / folder / name).is_dir() for home in checkouts() for name in known)
