"""A copy of this project in a folder of its own, with a recipe small enough to run in seconds."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

TINY = """\
about: a few steps on the digits, for tests
phases: 2
target_sparsity: 0.8
data: {name: digits, size: 8}
network: {name: resnet8}
augmentation: {crop_padding: 1}
pretrain: {epochs: 2, batch_size: 128, learning_rate: 0.1, weight_decay: 5.0e-4, schedule: linear}
retrain: {epochs: 1, schedule: ALLR}
"""

PARAMS = """\
recipe: tiny
seed: 0
seeds: null
m: 3
phases: null
target_sparsity: null
methods: [sms, imp]
merge: [uniform]
prune: {criterion: magnitude, allocation: global}
retrain: {epochs: null, schedule: null, vary: seed, values: null}
evaluate: {corruptions: none, corruptions_path: null, groups: true}
data: {path: null, size: null}
network: {name: null, weights: null}
pretrain: {epochs: null, batch_size: null, learning_rate: null, weight_decay: null}
"""

COPIED = (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml")
ROOMS = ("pipeline", "recipes", "stages", ".dvc/plots")


class Project:
    """A checkout with tiny params.yaml, its commands, and what they ran."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def create(cls, root: Path) -> "Project":
        """Copy the project to ``root`` and commit it there."""
        for room in ROOMS:
            ignored = shutil.ignore_patterns("__pycache__", "dvc.lock", "provenance.json")
            shutil.copytree(ROOT / room, root / room, ignore=ignored)
        for file in COPIED:
            shutil.copyfile(ROOT / file, root / file)
        (root / "recipes" / "tiny.yaml").write_text(TINY)
        (root / "params.yaml").write_text(PARAMS)
        project = cls(root)
        project.run(sys.executable, "-m", "pipeline", "plan")
        project.run("git", "init", "-q", "-b", "main")
        project.commit()
        return project

    def copy(self, root: Path) -> "Project":
        """Return a copy of everything, cache included, at ``root``."""
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root)

    def commit(self) -> None:
        """Commit everything that git sees."""
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "--allow-empty", "-m", "test")

    def run(self, *command: str, ok: bool = True, **more: str) -> str:
        """Run ``command`` here, with ``more`` environment, and return what it printed."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment() | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if ok != (done.returncode == 0):
            raise AssertionError(f"{command} exited with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """Return an environment in which nothing of the machine's own set-up shows."""
        identity = {
            f"GIT_{role}_{what}": value
            for role in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "test"), ("EMAIL", "test@example.org"))
        }
        bin_folder = str(Path(sys.executable).parent)
        settings = ("DVC_", "MLFLOW_")
        inherited = {name: v for name, v in os.environ.items() if not name.startswith(settings)}
        return {
            **inherited,
            **identity,
            "DVC_SITE_CACHE_DIR": str(self.root.parent / "site-cache"),
            "DVC_NO_ANALYTICS": "1",
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "SMS_PYTHON": sys.executable,
            "SMS_MLFLOW": inherited.get("SMS_MLFLOW", "0"),
        }

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace the one ``old`` in ``file`` with ``new``."""
        path = self.root / file
        text = path.read_text()
        if text.count(old) != 1:
            raise AssertionError(f"{file} has {old!r} {text.count(old)} times")
        path.write_text(text.replace(old, new))


def write_example(folder: Path) -> None:
    """Write the files of the example of docs/extend.md to ``folder``."""
    page = (ROOT / "docs" / "extend.md").read_text()
    blocks = dict(re.findall(r"`mine/(\w+\.\w+)`[^`]*?```\w+\n(.*?)```", page, re.DOTALL))
    assert set(blocks) == {"bars.py", "net.py", "blocks.py", "relative.py", "bars.yaml"}
    folder.mkdir()
    for name, text in blocks.items():
        (folder / name).write_text(text)


def ran(output: str) -> set[str]:
    """Return the stages that ``output`` of a run says were run, not taken from the cache."""
    return set(re.findall(r"^\[ *\d+/\d+\] +ran +(\S+)", output, re.MULTILINE))


def trained(output: str) -> set[str]:
    """Return the stages of ``output`` that trained a network."""
    return {name for name in ran(output) if re.search(r"-(dense|c\d+)$", name)}
