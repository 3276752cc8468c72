"""Every merge rule through the whole graph: each soup as sparse as its parent, and cached apart."""

import json
import shutil

import pytest
import torch

from pipeline import families
from pipeline.checkpoint import load
from tests.project import Project, ran

pytestmark = pytest.mark.slow

RULES = families.names("soup")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """Return a project that has run SMS with m = 3 by every rule."""
    made = Project.create(tmp_path_factory.mktemp("soups") / "project")
    made.edit("params.yaml", "merge: [uniform]", f"merge: [{', '.join(RULES)}]")
    made.edit("params.yaml", "methods: [sms, imp]", "methods: [sms]")
    made.run("dvc", "repro")
    return made


@pytest.mark.parametrize("rule", RULES)
def test_a_soup_says_what_it_took_and_has_its_parents_mask(project, rule):
    for phase in (1, 2):
        artifacts, name = project.root / "artifacts", f"s0-sms_{rule}-p{phase}"
        said = json.loads((artifacts / name / "merge.json").read_text())
        assert said["rule"] == rule
        assert len(said["weights"]) == 3
        assert sum(said["weights"]) + said["anchor"] == pytest.approx(1)
        assert said["taken"] == [i for i, weight in enumerate(said["weights"]) if weight > 0]
        assert len(said["why"]) > 20
        parent = "s0-p1-prune" if phase == 1 else f"{name}-prune"
        soup, pruned = (load(artifacts / each / "model.safetensors") for each in (name, parent))
        for key, mask in pruned.masks.items():
            assert torch.equal(soup.masks[key], mask)
            assert not soup.state[key][~mask].any()


def test_the_report_has_every_soup(project):
    results = (project.root / "reports" / "results.csv").read_text().splitlines()
    for rule in RULES:
        assert sum(line.startswith(f"sms_{rule},") for line in results) == 2
    page = (project.root / "reports" / "results.md").read_text()
    assert "SMS Model Stock" in page
    assert "## Missing" not in page
    assert "SMS WiSE" in page


def test_another_rule_runs_nothing_and_a_changed_one_its_own_merges(project):
    rules = project.root / "pipeline" / "soup"
    shutil.copyfile(rules / "wise.py", rules / "another.py")
    assert ran(project.run("dvc", "repro")) == set()
    with (rules / "wise.py").open("a") as file:
        file.write("\n# a comment changes no number\n")
    assert ran(project.run("dvc", "repro")) == {"s0-sms_wise-p1", "s0-sms_wise-p2"}
