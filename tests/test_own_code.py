"""Code of the user's: a path works where a name does, and its file is a dependency like ours."""

import json
import sqlite3
from contextlib import closing

import pytest
import yaml

from pipeline.storage.checkpoint import load
from tests.project import Project, ran, write_example

RECIPE = "../mine/bars.yaml"


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Project, str]:
    """Return a project that has run the example beside it, and what it printed."""
    folder = tmp_path_factory.mktemp("own")
    project = Project.create(folder / "project")
    write_example(folder / "mine")
    project.edit("params.yaml", "recipe: tiny", f"recipe: {RECIPE}")
    project.edit("params.yaml", "m: 3", "m: 2")
    project.edit("params.yaml", "phases: null", "phases: 1")
    project.edit("params.yaml", "methods: [sms, imp]", "methods: [sms]")
    project.edit("params.yaml", "criterion: magnitude", f"criterion: {folder}/mine/relative.py")
    return project, project.run("dvc", "repro", SMS_MLFLOW="1")


def stages(project: Project) -> dict:
    return yaml.safe_load((project.root / "stages" / "dvc.yaml").read_text())["stages"]


def reads(project: Project, file: str) -> set[str]:
    return {name for name, stage in stages(project).items() if file in stage["deps"]}


@pytest.mark.slow
def test_the_example_of_the_documentation_runs_and_changes_only_generated_files(first):
    project, output = first
    assert ran(output) == set(stages(project))
    status = project.run("git", "status", "--porcelain", "--untracked-files=all")
    changed = {line[3:] for line in status.splitlines() if not line[3:].startswith("reports/")}
    generated = {"stages/dvc.yaml", "stages/dvc.lock", "stages/provenance.json", "dvc.lock"}
    assert changed == {"params.yaml"} | generated
    page = (project.root / "reports" / "results.md").read_text()
    assert "# Results: bars" in page
    assert "relative pruning, global" in page
    assert "network net," in page
    assert "mine" not in page
    score = json.loads((project.root / "reports" / "metrics.json").read_text())["sms_uniform"]
    assert score["test_score"] > 0.8, "by chance: 0.5"


@pytest.mark.slow
def test_files_are_dependencies_of_the_stages_that_use_them(first):
    project, _ = first
    everything = set(stages(project))
    assert reads(project, "../mine/bars.py") == {"data"}
    assert reads(project, "../mine/relative.py") == {"s0-p1-prune"}
    assert reads(project, "../mine/net.py") == reads(project, "../mine/blocks.py")
    assert reads(project, "../mine/net.py") == everything - {"data"}
    assert " --code ../mine/bars.py" in " ".join(stages(project)["data"]["cmd"].split())
    assert str(project.root) not in (project.root / "stages/dvc.yaml").read_text()


@pytest.mark.slow
def test_an_edit_runs_exactly_the_stages_that_import_the_file(first):
    project, _ = first
    mine = project.root.parent / "mine"
    for file, again in (("relative.py", "relative.py"), ("blocks.py", "net.py")):
        with (mine / file).open("a") as source:
            source.write("# a comment more\n")
        assert ran(project.run("dvc", "repro")) == reads(project, f"../mine/{again}")
    project.run("dvc", "repro", "-f", "-s", "stages/dvc.yaml:s0-dense-eval")
    assert "up to date" in project.run("dvc", "status", "stages/dvc.yaml")


@pytest.mark.slow
def test_the_soup_is_registered_and_runs_under_short_names(first):
    project, _ = first
    meta = load(project.root / "artifacts/s0-sms_uniform-p1/model.safetensors").meta
    assert meta["network"] == "../mine/net.py:build"
    with closing(sqlite3.connect(project.root / "mlflow.db")) as store:
        versions = store.execute("select name, version from model_versions").fetchall()
        assert versions == [("sms-bars", 1)]
        names = {name for (name,) in store.execute("select name from runs")}
    assert "repro bars m=2" in names
    assert not any("/" in name for name in names)
