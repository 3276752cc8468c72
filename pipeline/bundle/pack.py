"""Packs the results of a bundle's run: report, measurements, and the networks that fit."""

import hashlib
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

from pipeline.bundle import origin
from pipeline.config import experiment
from pipeline.plan.build import build
from pipeline.plan.plan import Plan, artifact
from pipeline.storage.atomic_files import atomic_file, read_json, write_json

RUN = Path(".dvc/tmp/bundle/run.json")  # settings and machine; relative to the project
REPORT = Path(".dvc/tmp/bundle/report")
PART = 15 * 10**6  # bytes of a part of the networks' archive
RESULTS, NETWORKS = "{}-results.tar.gz", "{}-networks.tar.{}"
DIGEST = "{}-networks.sha256"


def pack(root: Path, out: Path, name: str, megabytes: float) -> str:
    """Write the report on the finished stages, and pack it; return a line with the counts.

    ``NAME-results.tar.gz`` has run.json, params.yaml, the lock file, the report and every JSON
    file of the artifacts. ``NAME-networks.tar.0`` and so on, parts of one archive, have the
    averages of the last phase and the dense networks, as far as ``megabytes`` (10^6 bytes) allow;
    ``NAME-networks.sha256`` has the hash of the whole archive. Files are replaced atomically: a run
    that is killed leaves the last packing, or parts of two archives, which the hash tells apart.
    """
    from pipeline.report.write import write as write_report  # noqa: PLC0415 - slow to import

    plan = build(experiment.load(root / "params.yaml"))
    facts = read_json(root / RUN)
    if "card" not in facts:
        resolved = plan.params.model_dump(mode="json", exclude_none=True)
        write_json(root / RUN, facts | origin.machine() | {"params": resolved})
    write_report(plan, root / "artifacts", root / REPORT)
    results = out / RESULTS.format(name)
    with atomic_file(results) as temporary, tarfile.open(temporary, "w:gz") as archive:
        for path, inside in _small(root):
            archive.add(path, inside)
    networks = list(_networks(plan, root))
    packed = _pack_networks(root, out, name, networks, megabytes * 10**6 - results.stat().st_size)
    ended = sum((root / artifact(node)).is_dir() for node in plan.nodes)
    return f"packed: {ended} of {len(plan.nodes)} stages, {packed} of {len(networks)} networks"


def _small(root: Path) -> Iterable[tuple[Path, str]]:
    yield root / RUN, "run.json"
    for file in ("params.yaml", "stages/dvc.lock"):
        if (root / file).exists():
            yield root / file, file
    for path in sorted((root / REPORT).rglob("*")):
        if path.is_file():
            yield path, f"reports/{path.relative_to(root / REPORT)}"
    for path in sorted((root / "artifacts").glob("*/*.json")):
        yield path, str(path.relative_to(root))


def _networks(plan: Plan, root: Path) -> Iterable[Path]:
    """Yield the averages of the last phase, then the dense networks, as far as they exist."""
    averages = [row for row in plan.rows if len(row.candidates) > 1]
    final = [row.model for row in averages if row.phase == plan.params.phases]
    dense = [row.model for row in plan.rows if row.phase == 0]
    for model in dict.fromkeys([*final, *dense]):
        path = root / artifact(model) / "model.safetensors"
        if path.exists():
            yield path


def _pack_networks(root: Path, out: Path, name: str, networks: list[Path], room: float) -> int:
    """Pack the networks that fit into ``room`` bytes, in parts; return their number."""
    whole = root / RUN.with_name(f"{name}.tar")
    chosen = 0
    with tarfile.open(whole, "w") as archive:
        for path in networks:
            room -= path.stat().st_size + 10_240  # a tar file's blocks
            if room < 0:
                break
            archive.add(path, str(path.relative_to(root)))
            chosen += 1
    old = set(out.glob(NETWORKS.format(name, "[0-9]*")))
    with whole.open("rb") as file, atomic_file(out / DIGEST.format(name)) as temporary:
        temporary.write_text(f"{hashlib.file_digest(file, 'sha256').hexdigest()}\n")
    with whole.open("rb") as file:
        number = 0
        while chosen and (part := file.read(PART)):
            path = out / NETWORKS.format(name, number)
            with atomic_file(path) as temporary:
                temporary.write_bytes(part)
            old.discard(path)
            number += 1
    for stale in old:
        stale.unlink()
    whole.unlink()
    return chosen


def main() -> None:
    """Pack the project in the working directory: OUT NAME MEGABYTES."""
    out, name, megabytes = sys.argv[1:]
    sys.stdout.write(pack(Path.cwd(), Path(out), name, float(megabytes)) + "\n")


if __name__ == "__main__":
    main()
