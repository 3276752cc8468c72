"""Writes the bundle: code, wheels, data and the script ``run`` in one folder."""

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.bundle import origin, wheels
from pipeline.config import experiment
from pipeline.errors import UserError
from pipeline.storage.atomic_files import write_json

FOLDERS = (".dvc/plots", "benchmarks", "pipeline", "recipes", "stages", "tests")
FILES = (".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml", "pyproject.toml")
EXCLUDED = ("__pycache__", "dvc.lock", "dvc.yaml")  # the bundle plans its graph
LIMIT = 40  # MiB, without the data
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")


@dataclass(frozen=True)
class Options:
    """The machine that a bundle is for, and what it carries besides the code."""

    python: str  # 3.12
    platform: str  # manylinux_2_28_x86_64
    data: tuple[Path, ...] = ()  # folders or archives
    more: tuple[str, ...] = ()  # further packages
    wheels: Path | None = None  # a folder of wheels in place of a download


def build(root: Path, folder: Path, options: Options) -> dict[str, float]:
    """Write the bundle of the checkout at ``root`` to ``folder``; return the MiB of its parts.

    An older bundle there is replaced once the new one is complete.

    Raises:
        UserError: ``folder`` is no bundle or has results, data or wheels are missing, params.yaml
            is wrong or names code that a bundle lacks, or wheels cannot be downloaded.
    """
    _check_replaceable(folder)
    _check_code(root)
    if options.wheels is not None and not any(options.wheels.glob("*.whl")):
        raise UserError(f"--wheels {options.wheels} has no .whl files: name a folder that has them")
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    (new / "wheels").mkdir(parents=True)
    (new / "data").mkdir()
    _code(root, new / "project")
    for source in options.data:
        _data(source, new / "data")
    if options.wheels is None:
        constraints = root / "constraints.txt"
        wheels.download(new / "wheels", options.python, options.platform, constraints, options.more)
    else:
        for wheel in options.wheels.glob("*.whl"):
            shutil.copy2(wheel, new / "wheels")
    shutil.copyfile(Path(__file__).with_name("run.py"), new / "run")
    (new / "run").chmod(0o755)
    shutil.copyfile(root / "params.yaml", new / "params.yaml")  # to which each run applies its -S
    facts = {"commit": origin.commit(root), "golden": origin.golden(root)}
    write_json(new / "bundle.json", facts | {"for": [options.python, options.platform]})
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    return {part: _mebibytes(folder / part) for part in ("project", "wheels", "data")}


def _check_replaceable(folder: Path) -> None:
    """Refuse a ``folder`` that is no bundle, or in which a run has left results."""
    if folder.exists() and not (folder / "bundle.json").is_file():
        raise UserError(f"{folder} exists, but is no bundle: name another folder, or remove it")
    if any((folder / "back").glob("*")):
        raise UserError(
            f"{folder / 'back'} has the results of a run, which a new bundle would delete: import "
            "them (`make intake`) and move them away, or name another folder (--out)"
        )


def _check_code(root: Path) -> None:
    """Refuse files that params.yaml names by their paths and that lie in none of `FOLDERS`."""
    params = experiment.load(root / "params.yaml")
    recipe = [params.recipe] if params.recipe_name != params.recipe else []
    for path in (*params.code, *recipe):
        if not path.startswith(tuple(f"{folder}/" for folder in FOLDERS)):
            raise UserError(
                f"params.yaml names {path}, which the bundle would lack: copy it to recipes/ "
                "(or another folder of the project that a bundle has), and name it there"
            )


def _code(root: Path, project: Path) -> None:
    for name in FOLDERS:
        shutil.copytree(root / name, project / name, ignore=shutil.ignore_patterns(*EXCLUDED))
    for name in FILES:
        shutil.copyfile(root / name, project / name)
    config = (root / ".dvc" / "config").read_text(encoding="utf-8")
    without_git = config.replace("[core]\n", "[core]\n    no_scm = true\n", 1)
    (project / ".dvc" / "config").write_text(without_git, encoding="utf-8")


def _data(source: Path, folder: Path) -> None:
    """Copy an archive as it is; put a folder into an archive of its name."""
    if source.is_file() and source.name.endswith(ARCHIVES):
        shutil.copyfile(source, folder / source.name)
    elif source.is_dir():
        with tarfile.open(folder / f"{source.name}.tar", "w") as archive:
            archive.add(source, arcname=source.name)
    else:
        kinds = ", ".join(ARCHIVES)
        raise UserError(f"DATA={source} must be a folder or an archive ({kinds}) that exists")


def _mebibytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
