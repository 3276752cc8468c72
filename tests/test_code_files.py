"""Paths in place of names: one form, checks before anything runs, and who may execute a file."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from pipeline import code_files, registry, repro
from pipeline.bundle import build as bundle
from pipeline.config.experiment import Experiment, load
from pipeline.data.base import Dataset, Split
from pipeline.errors import UserError
from pipeline.models.build import build as build_network
from pipeline.plan import dependencies, dvc_yaml
from pipeline.plan.build import build
from pipeline.plan.dependencies import closure
from pipeline.prune import rules
from pipeline.soup.build import INPUTS, required_inputs
from pipeline.stagekit.merge_inputs import MergeInputs
from pipeline.storage.checkpoint import Checkpoint, save
from pipeline.tasks.base import load as load_task
from stages import evaluate
from tests.command_line import stage
from tests.project import PARAMS, ROOT, TINY
from tests.test_stages import refused

FILES = """
# net.py
from torch import nn
from blocks import layer

def build(classes, channels):
    return layer(classes)
# blocks.py
from torch import nn

def layer(n):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, n))
# whole.py
from torch import nn

class Net(nn.Linear):
    def __init__(self, classes, channels):
        super().__init__(channels, classes)
# data.py
READS = ("part",)

def read(root, size): ...
# taylor.py
def scores(weights):
    return {name: -weight.abs() for name, weight in weights.items()}
# spread.py
def masks(scores, sparsity, alive, seed):
    return seed

def even(scores, sparsity, alive):
    return alive
# median.py
def merge(candidates, *, scores, digits=3): ...
# task.py
class Mine:
    metric = "exact"

TASK = Mine()

def summary(predictions, split, data, *, groups=True):
    return {"test_exact": 1.0}
# random.py
def scores(weights):
    return weights
# magnitude.py
def scores(weights): ...
# syntax.py
def scores(weights:
# void.py
value = 1
# shorter.py
def scores(): ...

async def later(weights): ...
# longer.py
def build(classes, channels, width): ...

def merge(candidates, best): ...
# imported.py
from median import merge
# around.py
from . import blocks

def build(classes, channels): ...
# 2nd.py
def scores(weights): ...
# bad(1).py
def scores(weights): ...
# package/__init__.py
# package/net.py
from .parts import x

def build(classes, channels):
    return x
# package/parts.py
import blocks

x = 1
# fails.py
import blocks

undefined.value

def build(classes, channels): ...
# broken.yaml
a: [
"""
CONTENT = dict(re.findall(r"^# (\S+)\n(.*?)(?=^# |\Z)", FILES, re.DOTALL | re.MULTILINE))
RECIPES = {"mine.yaml": TINY, "digits.yaml": TINY, "other.yml": TINY.replace("about:", "topic:")}
LOUD = "from pathlib import Path\nPath(__file__).with_name('executed').write_text('x')\n"


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """Return a folder of files beside the main checkout ``project``; this one is a queue's copy."""
    (tmp_path / "project").mkdir()
    for name, text in (CONTENT | RECIPES).items():
        file = tmp_path / "mine" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "mine" / "binary.yaml").write_bytes(bytes(range(256)))
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    monkeypatch.setattr(code_files, "_allowed", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path / "mine"
    code_files._module.cache_clear()
    for module in set(sys.modules) - before:
        if getattr(sys.modules[module], "__file__", None) and str(tmp_path) in str(
            sys.modules[module].__file__
        ):
            del sys.modules[module]


def experiment(folder: Path, **changes: Any) -> Experiment:
    """Return params.yaml with ``changes``; ``prune__criterion`` is a key in a group."""
    values = yaml.safe_load(PARAMS) | {"recipe": "digits"}
    for key, value in changes.items():
        section, _, last = key.rpartition("__")
        (values[section] if section else values)[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return load(folder / "params.yaml")


def test_a_path_has_one_form_however_it_is_written(mine):
    written = (
        "../mine/net.py",
        "../mine/./net.py:build",
        "../project/../mine/net.py",
        f"{mine}/net.py",
    )
    found = {experiment(mine, network__name=each).network.name for each in written}
    assert found == {"../mine/net.py:build"}
    params = experiment(
        mine,
        recipe="../mine/mine.yaml",
        prune__criterion="../mine/taylor.py",
        prune__allocation="../mine/spread.py:even",
        merge=["uniform", "../mine/median.py"],
        data__name="../mine/data.py",
        task="../mine/task.py",
    )
    assert params.merge == ["uniform", "../mine/median.py:merge"]
    assert params.recipe_name == "mine"
    files = ("task", "median", "data", "taylor", "spread")
    assert params.code == [f"../mine/{name}.py" for name in files]
    assert registry.label("prune/criteria", params.prune.criterion) == "taylor"
    assert registry.label("prune/allocations", params.prune.allocation) == "spread_even"


def test_far_files_have_absolute_paths_and_those_of_the_project_short_ones(tmp_path, monkeypatch):
    """Three folders up from .dvc/tmp/exps/NAME is the checkout, where nothing may be linked."""
    home = tmp_path / "a" / "b" / "c" / "home"
    copy = home / ".dvc" / "tmp" / "exps" / "copy"
    copy.mkdir(parents=True)
    for root, queued in ((home, ""), (copy, str(home))):
        monkeypatch.setenv("DVC_ROOT", queued)
        expected = {
            home / "mine" / "x.py": "mine/x.py",
            tmp_path / "a" / "b" / "c" / "x.py": "../x.py",
            tmp_path / "a" / "b" / "x.py": "../../x.py",
            tmp_path / "a" / "x.py": str(tmp_path / "a" / "x.py"),
        }
        assert {file: code_files.path_of(file, root) for file in expected} == expected
    assert code_files.path_of(copy / "mine" / "x.py", copy) == "mine/x.py"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("network__name", "../mine/none.py", ["no such file", "begin at", "project)"]),
        ("network__name", "../mine", ["network.name", "must be one of", "a path FILE.py:build"]),
        ("network__name", "../mine/net.py:", ["network.name", "':'"]),
        ("network__name", "../mine/net.py:bild", ["has no bild", "such as build"]),
        ("network__name", "../mine/longer.py", ["build must take (classes, channels)"]),
        ("network__name", "../mine/around.py", ["relative import", "import helpers"]),
        ("network__name", "timn.resnet18", ["torchvision.NAME, timm.NAME, a path FILE.py:build"]),
        ("data__name", "../mine/taylor.py:scores", ["data.name", "must take (root, size)"]),
        ("data__name", "../mine/net.py", ["data.name", "has no read"]),
        ("prune__criterion", "../mine/void.py", ["prune.criterion", "has no scores"]),
        ("prune__criterion", "../mine/syntax.py", ["syntax.py is not valid Python"]),
        ("prune__criterion", "../mine/shorter.py", ["must take (weights)"]),
        ("prune__criterion", "../mine/shorter.py:later", ["asynchronous"]),
        ("prune__criterion", "../mine/2nd.py", ["begin with a letter"]),
        ("prune__criterion", "../mine/bad(1).py", ["character '('"]),
        ("prune__criterion", "../mine/magnitude.py", ["pipeline/prune/criteria too", "rename"]),
        ("prune__criterion", "taylor", ["one of magnitude, a path FILE.py:scores"]),
        ("prune__allocation", "../mine/taylor.py:scores", ["must take (scores, sparsity, alive)"]),
        ("merge", ["../mine/longer.py"], ["must take (candidates, *, ...)", "parameters, parent"]),
        ("merge", ["../mine/imported.py"], ["plain `def`"]),
        ("merge", ["../mine/median.py", "../mine/package/../other/median.py"], ["no such file"]),
        ("task", "../mine/task.py:Mine", ["task is", "must be a task and not its class"]),
        ("recipe", "../mine/none.yaml", ["recipe", "no such file"]),
        ("recipe", "../mine/net.py", ["recipe", "must end in .yaml or .yml"]),
        ("recipe", "../mine/broken.yaml", ["../mine/broken.yaml is not valid YAML"]),
        ("recipe", "../mine/binary.yaml", ["../mine/binary.yaml is not valid YAML"]),
        ("recipe", "../mine/digits.yaml", ["recipes/ has one of that name too", "rename yours"]),
        ("recipe", "../mine/other.yml", ["../mine/other.yml: the key topic is unknown"]),
        ("recipe", "minst", ["recipe is 'minst'", "a path FILE.yaml"]),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_one_sentence(mine, key, value, words):
    with pytest.raises(UserError) as error:
        experiment(mine, **{key: value})
    sentence = str(error.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence


def test_two_rules_of_one_name_are_refused(mine):
    (mine / "other").mkdir()
    (mine / "other" / "median.py").write_text(CONTENT["median.py"])
    with pytest.raises(UserError, match="same name 'median'"):
        experiment(mine, merge=["../mine/median.py", "../mine/other/median.py"])


def test_a_check_executes_nothing(mine):
    (mine / "net.py").write_text(LOUD + CONTENT["net.py"])
    build(experiment(mine, network__name="../mine/net.py"))
    assert not (mine / "executed").exists()


BESIDE = """
import json, sys
from pathlib import Path
from pipeline import code_files
folder, path = sys.argv[1:]
code_files.allow([path])
code_files.execute(path)
files = [Path(vars(m).get("__file__") or "/") for m in list(sys.modules.values())]
print(json.dumps(sorted({str(f) for f in files if f.is_relative_to(folder) and f.stat().st_size})))
"""


@pytest.mark.parametrize("file", ["net.py", "package/net.py", "data.py"])
def test_the_closure_of_a_file_is_what_python_imports(mine, file):
    """Also where the project has a folder of the module's name, and an installed package has it."""
    (mine / "blocks.py").write_text(f"import data, colorama, random\n{CONTENT['blocks.py']}")
    (mine / "colorama.py").write_text("x = 1\n")
    command = [sys.executable, "-c", BESIDE, str(mine), f"../mine/{file}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = [f"../{Path(name).relative_to(mine.parent)}" for name in json.loads(run.stdout)]
    assert closure(f"../mine/{file}") == imported
    assert len(imported) == (1 if file == "data.py" else 4 if file == "net.py" else 5)


def test_one_module_name_in_the_folders_of_two_files_is_refused(mine):
    (mine / "other").mkdir()
    (mine / "other" / "rule.py").write_text("def scores(weights):\n    pass\n")
    assert "../mine/other/rule.py" in closure("../mine/net.py", "../mine/other/rule.py")
    (mine / "other" / "blocks.py").write_text("x = 1\n")
    dependencies._closure.cache_clear()
    with pytest.raises(UserError, match=r"both have a module blocks, .*rename one"):
        closure("../mine/net.py", "../mine/other/rule.py")


def test_the_plan_names_the_files_where_they_are_used(mine):
    params = experiment(
        mine,
        recipe="../mine/mine.yaml",
        network__name="../mine/net.py",
        prune__criterion="../mine/taylor.py",
        prune__allocation="../mine/spread.py",
        merge=["../mine/median.py"],
        task="../mine/task.py",
        methods=["sms", "gmp", "imp_reprune"],
        sparsify={"pruning_steps": 1},
    )
    nodes = build(params).nodes
    net, task = "../mine/net.py", "../mine/task.py"
    pruning = ["../mine/taylor.py", "../mine/spread.py"]
    expected = {
        "s0-dense": [net, task],
        "s0-p1-prune": [*pruning, net],
        "s0-p1-c0": [net, task],
        "s0-sms_median-p1": ["../mine/median.py", net, task],
        "s0-sms_median-p1-compare": [net, task],
        "s0-dense-eval": [net, task],
        "s0-imp_reprune-p2": [*pruning, net, task],
        "s0-gmp-p2": [net, task],
    }
    assert {name: nodes[name].arguments["code"] for name in expected} == expected
    assert "code" not in nodes["data"].arguments
    for node in nodes.values():
        for path in node.arguments.get("code", []):
            assert path in dvc_yaml.dependencies(node)
    assert isinstance(nodes["s0-p1-prune"].arguments["seed"], int), "the allocation takes one"
    even = experiment(mine, prune__allocation="../mine/spread.py:even")
    assert "seed" not in build(even).nodes["s0-p1-prune"].arguments


def test_a_study_names_stages_and_results_after_the_file_of_an_allocation(mine):
    def study(*allocations: str) -> Experiment:
        grid = {"allocations": [*allocations], "sparsities": [0.9]}
        return experiment(mine, studies=["latency"], study={"latency": grid})

    plan = build(study("global", "../mine/spread.py"))
    pruning = plan.nodes["s0-oneshot90-spread-p1-prune"]
    assert pruning.arguments["code"] == ["../mine/spread.py"]
    assert not any("/" in name for name in plan.nodes)
    points = [point.values.get("allocation") for point in plan.points]
    assert set(points) == {None, "global", "spread"}
    (mine / "other").mkdir()
    (mine / "other" / "spread.py").write_text(CONTENT["spread.py"])
    with pytest.raises(UserError, match="would have the same name 'spread'"):
        build(study("../mine/spread.py", "../mine/other/spread.py"))


def test_rules_of_a_file_are_called_like_ours(mine):
    code_files.allow(["../mine/taylor.py", "../mine/spread.py", "../mine/median.py"])
    weights = {"a": torch.tensor([1.0, -2.0])}
    scores = rules.load("criteria", "../mine/taylor.py:scores").scores(weights)
    assert scores["a"].tolist() == [-1, -2]
    assert rules.allocation("../mine/spread.py:masks", 7)({}, 0.5, {}) == 7
    with pytest.raises(UserError, match="draws at random"):
        rules.allocation("../mine/spread.py:masks")
    assert rules.allocation("../mine/spread.py:even")({}, 0.5, {"b": 1}) == {"b": 1}
    assert required_inputs("../mine/median.py:merge") == ["scores"]


def test_a_merge_rule_may_ask_for_what_exists():
    attributes = {name for name in vars(MergeInputs) if not name.startswith("_")}
    assert attributes == set(INPUTS)


def test_networks_of_a_file_are_built(mine):
    code_files.allow(["../mine/net.py", "../mine/whole.py"])
    network = build_network("../mine/net.py:build", 5, 1)
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 5)
    assert isinstance(build_network("../mine/whole.py:Net", 5, 3), nn.Linear)
    code_files.allow(["../mine/package/net.py"])
    with pytest.raises(UserError, match=r"returns int: it must return a torch\.nn\.Module"):
        build_network("../mine/package/net.py:build", 5, 3)


def test_a_file_may_have_the_name_of_a_standard_module(mine):
    import random

    code_files.allow(["../mine/random.py"])
    assert rules.load("criteria", "../mine/random.py:scores").scores(3) == 3
    assert sys.modules["random"] is random


def test_what_fails_in_a_file_is_one_sentence_with_its_line(mine):
    code_files.allow(["../mine/fails.py"])
    with pytest.raises(UserError) as error:
        build_network("../mine/fails.py:build", 5, 1)
    assert "NameError: name 'undefined' is not defined (fails.py, line 3)" in str(error.value)


def test_a_file_of_a_task_may_summarise(mine):
    code_files.allow(["../mine/task.py"])
    split = Split(torch.zeros(3, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 1, 1]))
    data = Dataset(split, split, split, ("a",), torch.zeros(1), torch.ones(1), {})
    data = replace(data, task="../mine/task.py:TASK")
    task = load_task(data.task)
    assert task.metric == "exact"
    kept = evaluate.measure_test_split(task, torch.zeros(3), data, groups=True)
    assert kept == {"test_exact": 1.0}


def foreign(folder: Path, network: str) -> Path:
    """Write a model folder whose network is ``network``."""
    meta = {"network": network, "classes": 10, "channels": 1, "sparsity": 0.0}
    state = {"1.weight": torch.ones(10, 64), "1.bias": torch.zeros(10)}
    folder.mkdir()
    save(folder / "model.safetensors", Checkpoint(state, {}, meta))
    return folder


def test_code_that_only_a_checkpoint_names_is_not_executed(mine, tmp_path):
    (mine / "net.py").write_text(LOUD + CONTENT["net.py"])
    parent, out = foreign(tmp_path / "model", "../mine/net.py:build"), tmp_path / "pruned"
    flags = ["--parent", parent, "--phase", 1, "--sparsity", 0.5, "--out", out]
    assert refused(stage("prune", *flags), "../mine/net.py", "only if params.yaml names it")
    assert refused(stage("prune", *flags, "--code", "../mine/taylor.py"), "../mine/net.py")
    assert not (mine / "executed").exists()
    assert not out.exists()
    done = stage("prune", *flags, "--code", "../mine/net.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert (mine / "executed").read_text() == "x"


def test_a_queued_experiment_has_links_to_files_outside_its_copy(tmp_path, monkeypatch):
    home, copy = tmp_path / "home", tmp_path / "home" / ".dvc" / "tmp" / "exps" / "copy"
    copy.mkdir(parents=True)
    (tmp_path / "mine.py").write_text("x = 1\n")
    link = copy / ".." / "mine.py"
    monkeypatch.setenv("DVC_ROOT", str(home))
    (copy.parent / "mine.py").symlink_to(tmp_path / "gone")  # of an earlier one
    for _ in range(2):
        assert repro._share(copy, "../mine.py")
        assert link.read_text() == "x = 1\n"
    assert not repro._share(copy, "../none.py")


def test_a_bundle_refuses_files_that_it_would_lack(mine):
    experiment(mine, recipe="../mine/mine.yaml")
    with pytest.raises(UserError, match=r"names \.\./mine/mine\.yaml, which the bundle would lack"):
        bundle._check_code(mine)
    experiment(mine, prune__criterion="../mine/taylor.py")
    with pytest.raises(UserError, match=r"names \.\./mine/taylor\.py, which the bundle would lack"):
        bundle._check_code(mine)
    experiment(mine)
    bundle._check_code(mine)
