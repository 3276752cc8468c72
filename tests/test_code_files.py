"""Paths in place of names: one form, checks before anything runs, and who may execute a file."""

import json
import re
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from torch import nn

from pipeline import __main__ as command_line
from pipeline import code_files, registry, repro
from pipeline.bundle import build as bundle
from pipeline.config.experiment import Experiment, load
from pipeline.data import base as data_base
from pipeline.data import build as data_build
from pipeline.data.base import Dataset, Split
from pipeline.errors import UserError
from pipeline.models.build import build as build_network
from pipeline.plan import dependencies, dvc_yaml
from pipeline.plan.build import build
from pipeline.plan.dependencies import closure
from pipeline.prune import rules
from pipeline.prune.apply import prune
from pipeline.run.ray_files import NodeFolder, unpack
from pipeline.run.ray_objects import Objects
from pipeline.seeds import derive
from pipeline.soup import build as soup_build
from pipeline.soup.build import INPUTS, required_inputs
from pipeline.stagekit import cli
from pipeline.stagekit.merge_inputs import MergeInputs
from pipeline.stagekit.new_network import new_network
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
from pipeline.tasks.classification import Classification

class Mine(Classification):
    metric = "exact"

TASK = Mine()
number = 3

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

scores = {}
# needs.py
import blocks, helpers_of_needs

def scores(weights): ...
# helpers_of_needs.py
import nowhere_installed
# guarded.py
try:
    import nowhere_installed
except ImportError:
    pass

def scores(weights):
    import nowhere_either
# elsewhere.py
import sys
sys.path.append("/elsewhere")
import nowhere_installed

def scores(weights): ...
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
        ("prune__criterion", "../mine/void.py", ["prune.criterion", "a function and not {}"]),
        ("prune__criterion", "../mine/void.py:values", ["prune.criterion", "has no values"]),
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
        ("task", "../mine/task.py:number", ["task is", "must be a task and not 3"]),
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
        methods=["sms", "imp_reprune"],
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
    with pytest.raises(UserError, match=r"spread\.py:masks returns int"):  # the seed
        rules.allocation("../mine/spread.py:masks", 7)({}, 0.5, {})
    with pytest.raises(UserError, match="draws at random"):
        rules.allocation("../mine/spread.py:masks")
    alive = {"b": torch.tensor([True, False])}
    masks = rules.allocation("../mine/spread.py:even")({}, 0.5, alive)
    assert masks["b"].tolist() == [True, False]
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


WEIGHTS = ("a.weight", "b.weight")
RETURNS = """
# criterion
return None -> returns NoneType: it must return a dict
return {name: 1.0 for name in weights} -> gives 'a.weight' no scores to rank
return weights | {"c": weights["a.weight"]} -> a dict with 'a.weight', 'b.weight', 'c'
raise ValueError("too\\nwide") -> mine/own.py:made fails: ValueError: too wide (own.py, line 8)
raise SystemExit(3) -> fails: SystemExit: 3 (own.py, line 8): correct it
return weights["none"] -> fails: KeyError: 'none' (own.py, line 8)
# allocation
return None -> returns NoneType: it must return a dict of the mask of each weight
return {} -> returns a dict with no name
return {name: mask.T for name, mask in alive.items()} -> gives 'a.weight' no mask: it must be a bool
return {name: mask.float() for name, mask in alive.items()} -> no mask: it must be a bool tensor
return {name: True for name in alive} -> of the shape [4, 5]
return {name: torch.ones_like(mask) for name, mask in alive.items()} -> keeps weights of 'a.weight'
return {name: mask.fill_(True) for name, mask in alive.items()} -> keeps weights of 'a.weight'
return alive -> prunes 20 of 60 weights, but a sparsity of 0.5 is 30
# merge
return None -> returns NoneType: it must return a pipeline.soup.base.Soup
return first -> returns Checkpoint: it must
return Soup(None, (1.0, 0.0), "") -> returns a Soup whose checkpoint is no Checkpoint of tensors
return Soup(Checkpoint({"a.weight": 1}, {}, {}), (1.0, 0.0), "") -> no Checkpoint of tensors
return soup(state={}) -> differs from its candidates in the tensor 'a.weight'
return soup(state={name: each.half() for name, each in state.items()}) -> in the tensor 'a.weight'
return soup(masks={}) -> differs from its candidates in the mask 'a.weight'
return soup(meta={}) -> in the metadata
return soup(state={name: each + 1 for name, each in state.items()}) -> pruned weights of 'a
return soup(state={name: each / 0 for name, each in state.items()}) -> NaN or infinity in 'a
return soup(weights=(1.0,)) -> has the weights (1.0,): they must be 2 finite numbers
return soup(weights=(1.0, math.inf)) -> must be 2 finite numbers
return soup(trials=[{1: first}]) -> trials that are no JSON
return soup(reason=None) -> a reason that is no text
# network
return nn.Identity() -> returns a network without parameters
return Two(8, 8) -> the network returns tuple for one example, but the task classification
return nn.Sequential(nn.Flatten(), nn.Linear(64, classes + 1)) -> scores of the shape [1, 4]
return nn.Conv2d(channels, classes, 8) -> returns scores of the shape [1, 3, 1, 1]
return nn.Sequential(nn.LSTM(8, 8), nn.Linear(8, 8)) -> the network cannot take examples
return nn.Linear(classes) -> fails: TypeError: Linear.__init__() missing 1 required
# data
return None -> returns NoneType: it must return a pipeline.data.base.RawData
return RawData(Split(torch.zeros(3, 1, 8, 8), labels), split, "ab") -> ValueError: images must
return RawData(split, Split(split.images, labels + 1), "ab") -> test labels are from 1 to 2
return RawData(split, Split(split.images[:, :, :4], labels), "ab") -> test examples have the shape
return RawData(split, split.take(torch.tensor([], dtype=torch.int64)), "ab") -> test split has no
return RawData(split, split, "aba") -> classes have the name 'a' 2 times: give each a name
return RawData(split, split, "ab", {"g": Groups(("c", "c"), labels)}) -> groups 'g' have the name
return RawData(split, split, "ab", {"g": Groups(("c", "d"), labels[:2])}) -> do not fit test: give
return RawData(split, split, "ab", {"g": Groups(("c", "d"), labels, labels + 1)}) -> do not fit
# task
return 3 -> has no correct, counted, ensemble, loss, measure, observe, predict, scores_shape
class Half(Task): metric = "half" -> has no predict, measure: make it an object
class Half(Classification): metric = 5 -> has no metric
"""
BODIES = {  # by family: what surrounds a line of RETURNS
    "criterion": "def made(weights):\n    {}\n",
    "allocation": "def made(scores, sparsity, alive):\n    {}\n",
    "merge": """def made(candidates):
    first = candidates[0]
    state = dict(first.state)
    def soup(weights=(0.5, 0.5), reason="", trials=(), **parts):
        kept = {{"state": first.state, "masks": first.masks, "meta": first.meta}}
        return Soup(Checkpoint(**kept | parts), weights, reason, trials)
    {}
""",
    "network": """class Two(nn.Linear):
    def forward(self, x): return x, x
def made(classes, channels):
    {}
""",
    "data": """labels = torch.tensor([0, 1, 1])
split = Split(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), labels)
def made(root, size):
    {}
""",
    "task": "{}\nmade = Half()\n",
}
IMPORTS = """import math, torch
from torch import nn
from pipeline.data.base import Groups, RawData, Split
from pipeline.soup.base import Soup
from pipeline.storage.checkpoint import Checkpoint
from pipeline.tasks.classification import Classification, Task
"""


def returns() -> list[Any]:
    """Return family, line of code and words of each case in RETURNS."""
    cases, family = [], ""
    for line in RETURNS.strip().splitlines():
        if line.startswith("# "):
            family = line.removeprefix("# ")
        else:
            code, _, words = line.partition(" -> ")
            cases.append(pytest.param(family, code, words, id=f"{family}: {code}"))
    return cases


def half_pruned() -> Checkpoint:
    """Return a checkpoint of two weights, 60 numbers, of which 20 are pruned."""
    shapes = dict(zip(WEIGHTS, ((4, 5), (10, 4)), strict=True))
    masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
    masks["a.weight"][1:] = False
    masks["b.weight"][:, 0].view(-1)[:5] = False
    return Checkpoint({name: 2.0 * mask for name, mask in masks.items()}, masks, {"phase": 1})


def three_classes() -> Dataset:
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    split = Split(images, torch.tensor([0, 1, 2]))
    return Dataset(split, split, split, ("a", "b", "c"), torch.zeros(1), torch.ones(1), {})


def used(family: str, path: str) -> Any:
    """Use the member of a family as the stages do."""
    parent = half_pruned()
    match family:
        case "criterion" | "allocation":
            return prune(parent, WEIGHTS, 0.5, **{family: path}, parameters=WEIGHTS)
        case "merge":
            return soup_build.merge(path, [parent, parent])
        case "network":
            return new_network(path, three_classes(), seed=0)
        case "data":
            return data_build.read(path)
    return load_task(path)


@pytest.mark.parametrize(("family", "code", "words"), returns())
def test_what_the_users_code_returns_is_checked(mine, family, code, words):
    body = BODIES[family].format(code)
    if family == "task" and code.startswith("return"):
        body = f"made = {code.removeprefix('return ')}"
    (mine / "own.py").write_text(f"{IMPORTS}{body}")
    code_files.allow(["../mine/own.py"])
    with pytest.raises(UserError) as error:
        used(family, "../mine/own.py:made")
    assert words in str(error.value)
    assert "../mine/own.py:made" in str(error.value) or family == "network"


RIGHT = {
    "criterion": "return {name: weight.abs_().add_(1) for name, weight in weights.items()}",
    "allocation": """alive["b.weight"][:2, 1:] = False
    alive["b.weight"][5, :] = False
    return dict(reversed(alive.items()))""",
    "merge": 'return soup(reason="the first", trials=[{"tried": 1}])',
    "network": "return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))",
    "data": 'return RawData(split, split, ("a", "b"))',
    "task": 'class Half(Classification): metric = "half"',
}


@pytest.mark.parametrize("family", RIGHT)
def test_what_fits_is_used(mine, family):
    """Rules may change what they are given: the network and its masks stay as they are."""
    (mine / "own.py").write_text(f"{IMPORTS}{BODIES[family].format(RIGHT[family])}")
    code_files.allow(["../mine/own.py"])
    result = used(family, "../mine/own.py:made")
    if family in {"criterion", "allocation"}:
        pruned, metrics = result
        assert (metrics["kept"], metrics["pruned_fraction"]) == (30, 0.25)
        assert set(pruned.state["b.weight"].unique().tolist()) == {0.0, 2.0}
        assert list(pruned.masks) == list(WEIGHTS)


def test_a_network_is_checked_without_a_trace(mine):
    """Neither its buffers nor the random numbers after it depend on the check."""
    layers = "nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), Noise(), nn.Flatten()"
    noise = "class Noise(nn.Module):\n    def forward(self, x): return x + torch.rand(1)\n"
    net = f"return nn.Sequential({layers}, nn.Linear(144, classes))"
    (mine / "own.py").write_text(f"{IMPORTS}{noise}{BODIES['network'].format(net)}")
    code_files.allow(["../mine/own.py"])
    checked, meta = new_network("../mine/own.py:made", three_classes(), seed=7)
    drawn = torch.rand(3)
    torch.manual_seed(derive(7, "weights"))
    plain = build_network("../mine/own.py:made", 3, 1)
    assert torch.equal(torch.rand(3), drawn)
    assert meta == {"network": "../mine/own.py:made", "classes": 3, "channels": 1}
    states = checked.state_dict(), plain.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    assert all(module.training for module in checked.modules())


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("raise ValueError('of mine')", 2),
        ("raise SystemExit(3)", 2),
        ("[][1]", 2),
        ("raise MemoryError", MemoryError),
        ("raise RuntimeError('CUDA out of memory')", RuntimeError),
        ("raise OSError(28, 'No space left on device')", 28),
        ("raise KeyboardInterrupt", KeyboardInterrupt),
    ],
)
def test_an_error_in_a_method_of_the_users_ends_a_stage_in_one_sentence(
    mine, line, status, monkeypatch, capsys
):
    """A loss or a forward pass is called by our code at many places."""
    (mine / "own.py").write_text(f"class Own:\n    def loss(self):\n        {line}\n")
    monkeypatch.setattr(sys, "argv", ["stage", "--code", "../mine/own.py"])
    with pytest.raises(SystemExit if isinstance(status, int) else status) as end:
        cli.run(lambda _: code_files.execute("../mine/own.py").Own().loss(), ArgumentParser())
    if isinstance(status, int):
        assert end.value.code == status
        sentence = capsys.readouterr().err
        assert sentence.startswith("error: ")
        assert sentence.count("\n") == 1
        assert status != 2 or "../mine/own.py fails: " in sentence
        assert status != 2 or "(own.py, line 3): correct it" in sentence


def test_the_cost_of_a_network_of_a_file_is_measured(mine, monkeypatch, capsys):
    experiment(mine, network__name="../mine/net.py", recipe="../mine/mine.yaml")
    data = three_classes()
    rows = torch.arange(60) % 3
    data = replace(data, train=data.train.take(rows), val=data.val.take(rows))
    data_base.save(data, mine / "artifacts" / "data")
    monkeypatch.chdir(mine)
    monkeypatch.setattr(sys, "argv", ["pipeline", "cost"])
    with pytest.raises(SystemExit, match=r"^0$"):
        command_line.main()
    assert "images/s" in capsys.readouterr().out
    code_files._module.cache_clear()
    text = CONTENT["net.py"].replace("return layer(classes)", "return Bad(1, classes)")
    bad = "class Bad(nn.Linear):\n    def forward(self, x): raise SystemExit(3)\n"
    (mine / "net.py").write_text(f"{text}{bad}")
    with pytest.raises(SystemExit, match=r"^2$"):
        command_line.main()
    sentence = "error: ../mine/net.py fails: SystemExit: 3 (net.py, line 7): correct it\n"
    assert capsys.readouterr().err == sentence


def test_an_error_of_ours_keeps_its_traceback(mine, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stage", "--code", "../mine/net.py"])
    for error in (ValueError("a bug"), SystemExit(7)):
        with pytest.raises(type(error)) as end:
            cli.run(mock.Mock(side_effect=error), ArgumentParser())
        assert end.value is error


@pytest.mark.parametrize("line", ["raise SystemExit(3)", "import syntax"])
def test_an_end_at_the_top_of_a_file_is_one_sentence(mine, line):
    (mine / "own.py").write_text(f"x = 1\n{line}\n")
    code_files.allow(["../mine/own.py"])
    with pytest.raises(
        UserError, match=r"own\.py cannot be imported: S.*\(own\.py, line 2\): corr"
    ):
        code_files.execute("../mine/own.py")


def test_an_import_that_is_not_installed_is_refused_before_anything_runs(mine):
    with pytest.raises(UserError) as error:
        closure("../mine/needs.py")
    sentence = str(error.value)
    assert "../mine/helpers_of_needs.py imports nowhere_installed (line 1), which" in sentence
    assert closure("../mine/guarded.py") == ["../mine/guarded.py"]
    assert closure("../mine/elsewhere.py") == ["../mine/elsewhere.py"]


@pytest.mark.parametrize(
    ("method", "key", "value", "words"),
    [
        ("gmp", "criterion", "../mine/taylor.py", "set it to magnitude, or leave the method out"),
        ("gmp_sms", "allocation", "../mine/spread.py", "set it to global, or leave the method out"),
        ("acdc", "allocation", "erk", "prune.allocation is erk, but acdc has its own"),
        ("rigl", "allocation", "latency", "set it to global or erk, or leave the method out"),
    ],
)
def test_methods_that_prune_in_training_refuse_what_they_would_ignore(
    mine, method, key, value, words
):
    with pytest.raises(UserError, match=words):
        build(experiment(mine, methods=["sms", method], **{f"prune__{key}": value}))


def test_rigl_takes_its_own_allocation_and_bimp_any(mine):
    build(experiment(mine, methods=["rigl", "imp"], prune__allocation="erk"))
    plan = build(experiment(mine, methods=["bimp"], prune__criterion="../mine/taylor.py"))
    assert any(
        "../mine/taylor.py" in node.arguments.get("code", []) for node in plan.nodes.values()
    )


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


def test_the_plan_says_which_code_lies_outside_the_repository(mine):
    """Nodes of a cluster that do not see the folder get what is inside."""
    inside = mine.parent / "project" / "own"
    inside.mkdir()
    for name in ("net.py", "blocks.py"):
        (inside / name).write_text(CONTENT[name])
    for path in ("own", "../mine"):
        plan = build(experiment(mine, network__name=f"{path}/net.py"))
        files = [f"{path}/blocks.py", f"{path}/net.py"]
        for name, written in yaml.safe_load(dvc_yaml.render(plan))["stages"].items():
            used = files if name != "data" else []
            assert [file for file in written["deps"] if file in files] == used
            assert written.get("meta", {}).get("outside", []) == (used if path != "own" else [])


def test_a_node_that_does_not_see_the_folder_runs_code_of_the_repository(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (tmp_path / "node").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    files = [f"pipeline/{name}.py" for name in ("__init__", "code_files", "errors", "registry")]
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes((ROOT / file).read_bytes())
    for name in ("net.py", "blocks.py"):
        (root / "own").mkdir(exist_ok=True)
        (root / "own" / name).write_text(CONTENT[name])
    files += ["own/net.py", "own/blocks.py"]
    objects = Objects(SimpleNamespace(put=lambda packed: packed), root).of(dict.fromkeys(files, ""))
    node = NodeFolder()
    (node.stored("code") / "stages").mkdir(parents=True)
    (node.stored("code") / "stages" / "run").touch()
    for key, archive in objects.items():
        unpack(archive, node.stored(key))
    folder = node.run("s0-dense", 1, objects)
    program = """
from pipeline import code_files, registry
code_files.allow(["own/net.py"])
print(registry.load("models", "own/net.py:build", "network.name").build(5, 1))
"""
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    node.close()
    assert "out_features=5" in run.stdout, run.stderr


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
