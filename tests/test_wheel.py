"""The wheel in an environment that has its dependencies and nothing else."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from email.parser import Parser
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.project import ROOT

pytestmark = pytest.mark.slow
EXTRA = (
    "dvc matplotlib mlflow pandas PIL pydantic rich ruamel scipy skimage sklearn torchvision yaml"
)

# What README's reader has: a network, a loader, a loop.
PRELUDE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 3))
examples = TensorDataset(torch.randn(64, 1, 8, 8), torch.randint(3, (64,)))
loader = DataLoader(examples, batch_size=16, shuffle=True)

def train(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for inputs, targets in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
"""
CHECKS = """
for network in (*candidates, soup):
    assert abs(api.sparsity(network) - 0.9) < 0.001
    for name, mask in api.masks(network).items():
        assert not network.get_parameter(name)[~mask].signbit().any()
means = [network[1].running_mean for network in (*candidates, soup)]
assert not torch.equal(candidates[0][3].weight, candidates[1][3].weight)
assert not any(torch.equal(means[-1], mean) for mean in means[:-1])
"""


def built(folder: Path) -> Path:
    """Build the wheel of this checkout, without a network, and return it."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    for name in ("pipeline", "stages"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def pip(python: str | Path, *words: str | Path) -> None:
    """Run this environment's pip for ``python``, without a network."""
    command = [sys.executable, "-m", "pip", "--python", python, *words, "--no-index", "--quiet"]
    subprocess.run(list(map(str, command)), check=True, cwd="/", env=clean())


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def required(wheel: Path) -> list[str]:
    """Return the requirements in the metadata of ``wheel``, those of its extras included."""
    with zipfile.ZipFile(wheel) as archive:
        (file,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(file).decode())
    return metadata.get_all("Requires-Dist")


def closure(requirements: Iterable[str]) -> dict[str, Distribution]:
    """Return what pip would install for ``requirements`` without extras, as it is here."""
    found: dict[str, Distribution] = {}
    waiting = [(Requirement(text), "") for text in requirements]
    asked = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        package = distribution(requirement.name)
        found[package.metadata["Name"]] = package
        for wanted in {"", *requirement.extras} - {e for name, e in asked if name == package.name}:
            asked.add((package.name, wanted))
            waiting += [(Requirement(text), wanted) for text in package.requires or ()]
    return found


def link(package: Distribution, site: Path) -> None:
    """Link the files of ``package`` into ``site``; a folder as a whole if it is a package."""
    source = Path(package.locate_file(""))
    for file in package.files or ():
        parts = file.parts
        if ".." in parts or "__pycache__" in parts:
            continue  # commands, and bytecode
        for depth in range(1, len(parts) + 1):
            inside = Path(*parts[:depth])
            if depth == len(parts) or (source / inside / "__init__.py").exists():
                break
        if not (site / inside).exists():
            (site / inside).parent.mkdir(parents=True, exist_ok=True)
            (site / inside).symlink_to(source / inside)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Return the Python of an environment with the wheel and its declared dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel, environment = built(folder), folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    packages = closure(required(wheel))
    assert {"numpy", "safetensors", "torch"} <= packages.keys()
    for package in packages.values():
        link(package, site)
    pip(environment / "bin/python", "install", wheel)  # refuses if a dependency is missing
    return environment / "bin/python"


def run(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-I", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=python.parent)


def test_nothing_else_is_installed(python):
    """Neither DVC nor MLflow, nor any other package of the extra `pipeline`."""
    code = (
        f"from importlib.util import find_spec; import pipeline; print(pipeline.__path__[0]); "
        f"print(*filter(find_spec, {EXTRA!r}.split()))"
    )
    place, others = run(python, "-c", code).stdout.splitlines()
    assert place.startswith(str(python.parent.parent))
    assert others == ""


def test_the_lines_of_the_readme_run(python):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (lines,) = (block for block in blocks if "from pipeline import api" in block)
    done = run(python, "-W", "error", "-c", PRELUDE + lines + CHECKS)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["plan", "run", "methods"])
def test_the_pipeline_asks_for_its_extra(python, command):
    done = run(python, "-m", "pipeline", command)
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: \w+ is not installed, .* pip install -e '\.\[pipeline\]'\n", done.stderr
    )
