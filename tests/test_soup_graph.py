"""Every merge rule through the whole graph: each soup as sparse as its parent, and cached apart.

The networks are pruned to 3:4 in phase 1 and to 2:4 in phase 2.
"""

import csv
import json
import re
import shutil
import sqlite3
import sys
from contextlib import closing

import pytest
import torch

from pipeline import registry
from pipeline.storage.checkpoint import load
from tests.project import Project, ran

pytestmark = pytest.mark.slow

RULES = registry.names("soup")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """Return a project that has run SMS with m = 3 by every rule, with 2:4 pruning."""
    made = Project.create(tmp_path_factory.mktemp("soups") / "project")
    made.edit("params.yaml", "merge: [uniform]", f"merge: [{', '.join(RULES)}]")
    made.edit("params.yaml", "methods: [sms, imp]", "methods: [sms]")
    made.edit("params.yaml", "prune: {", 'prune: {structure: "2:4", ')
    made.run("dvc", "repro")
    return made


@pytest.mark.parametrize("rule", RULES)
def test_a_soup_says_what_it_took_and_has_its_parents_mask(project, rule):
    for phase in (1, 2):
        artifacts, name = project.root / "artifacts", f"s0-sms_{rule}-p{phase}"
        said = json.loads((artifacts / name / "merge.json").read_text())
        assert said["rule"] == rule
        assert len(said["weights"]) == 3
        assert sum(said["weights"]) + said["parent_weight"] == pytest.approx(1)
        assert said["included"] == [i for i, weight in enumerate(said["weights"]) if weight > 0]
        assert len(said["reason"]) > 20
        parent = "s0-p1-prune" if phase == 1 else f"{name}-prune"
        soup, pruned = (load(artifacts / each / "model.safetensors") for each in (name, parent))
        for key, mask in pruned.masks.items():
            assert torch.equal(soup.masks[key], mask)
            assert not soup.state[key][~mask].any()
            groups = (soup.state[key] != 0).transpose(1, -1)
            if key == "conv1.weight":  # one input channel
                assert groups.all()
            else:
                assert set(groups.reshape(-1, 4).sum(1).tolist()) == {4 - phase}


def test_the_report_has_every_soup(project):
    results = (project.root / "reports" / "results.csv").read_text().splitlines()
    for rule in RULES:
        assert sum(line.startswith(f"sms_{rule},") for line in results) == 2
    page = (project.root / "reports" / "results.md").read_text()
    assert "SMS Model Stock" in page
    assert "## Missing" not in page
    assert "SMS WiSE" in page
    assert "2 phases to 50 % sparsity; magnitude pruning, 2:4 along input channels (49.9" in page
    assert "as 1 layer stays dense: conv1)" in page
    pruning = json.loads((project.root / "artifacts/s0-p1-prune/metrics.json").read_text())
    assert pruning["dense_layers"] == ["conv1.weight"]


def runs(project: Project) -> int:
    with closing(sqlite3.connect(project.root / "mlflow.db")) as store:
        return int(store.execute("select count(*) from runs").fetchone()[0])


def test_with_nothing_to_do_nothing_is_imported_written_or_logged(project):
    page = project.root / "reports" / "results.md"
    project.run("dvc", "repro", SMS_MLFLOW="1")  # logs what is cached
    before = page.stat().st_mtime_ns, runs(project)
    command = [sys.executable, "-X", "importtime", "-m", "stages.all"]
    output = project.run(*command, SMS_MLFLOW="1")
    assert ran(output) == set()
    imported = set(re.findall(r"\| +([\w.]+)$", output, re.MULTILINE))
    assert "pipeline.repro" in imported
    assert not {"dvc", "pandas", "matplotlib", "mlflow", "torch"} & imported
    assert (page.stat().st_mtime_ns, runs(project)) == before
    text = page.read_text()
    page.write_text(f"{text}by hand")
    assert ran(project.run(*command, SMS_MLFLOW="1")) == set()
    assert page.read_text() == text
    assert runs(project) > before[1], "a report that is written is logged"


def test_a_report_under_other_parameters_has_none_of_these_results(project):
    project.edit("params.yaml", "m: 3", "m: 4")
    assert "1 of 15 results" in project.run(sys.executable, "-m", "pipeline", "report")
    results = (project.root / "reports" / "results.csv").open(encoding="utf-8")
    with results:
        found = {row["method"]: row["test_score"] for row in csv.DictReader(results)}
    assert [method for method, score in found.items() if score] == ["dense"]
    project.edit("params.yaml", "m: 4", "m: 3")
    assert "15 results" in project.run(sys.executable, "-m", "pipeline", "report")
    assert "## Missing" not in (project.root / "reports" / "results.md").read_text()


def test_another_rule_runs_nothing_and_a_changed_one_its_own_merges(project):
    rules = project.root / "pipeline" / "soup"
    shutil.copyfile(rules / "wise.py", rules / "another.py")
    assert ran(project.run("dvc", "repro")) == set()
    with (rules / "wise.py").open("a") as file:
        file.write("\n# a comment changes no number\n")
    assert ran(project.run("dvc", "repro")) == {"s0-sms_wise-p1", "s0-sms_wise-p2"}
