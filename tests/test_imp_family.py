"""IMP's relatives and the allocations, from params.yaml to a filled report."""

import csv
import json

import pytest

from tests.project import Project, ran, trained

pytestmark = pytest.mark.slow

METHODS = ["imp_caa", "imp_cia", "imp_phases", "imp_reprune"]


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Project, str]:
    """Return a project that has run IMP's relatives under ERK, and what it printed."""
    project = Project.create(tmp_path_factory.mktemp("imp") / "project")
    project.edit("params.yaml", "methods: [sms, imp]", f"methods: [{', '.join(METHODS)}]")
    project.edit("params.yaml", "allocation: global", "allocation: erk")
    project.edit("params.yaml", "m: 3", "m: 2")
    return project, project.run("dvc", "repro")


def rows(project: Project) -> dict[str, dict[str, str]]:
    with (project.root / "reports" / "results.csv").open() as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_every_method_has_its_row_at_the_last_sparsity(first):
    project, output = first
    found = rows(project)
    assert set(found) == {"dense", *METHODS}
    for method in METHODS:
        assert int(found[method]["phase"]) == 2
        assert float(found[method]["sparsity"]) == pytest.approx(0.8, abs=1e-4)
        assert 0 < float(found[method]["test_accuracy"]) <= 1
    runs = {"s0-p1-c0", "s0-p1-c1", "s0-imp-p2-c0", "s0-imp-p2-c1"}
    longer = {"s0-phases4-p1-c0", *(f"s0-phases4-imp-p{phase}-c0" for phase in (2, 3, 4))}
    assert trained(output) == {"s0-dense"} | runs | longer, "the averages share their runs"


def test_cia_is_the_plain_mean_and_caa_is_not(first):
    found = rows(first[0])
    assert found["imp_cia"]["test_loss"] == found["imp_reprune"]["test_loss"]
    assert found["imp_caa"]["test_loss"] != found["imp_reprune"]["test_loss"]


def test_the_report_names_them(first):
    report = (first[0].root / "reports" / "results.md").read_text()
    for label in ("IMP-RePrune (CAA)", "IMP-RePrune (CIA)", "IMP with 2× phases"):  # noqa: RUF001
        assert label in report


def test_erk_gives_every_run_the_same_layer_sparsities(first):
    """By the layers' shapes alone, so networks that trained apart agree to the last weight."""
    folder = first[0].root / "artifacts"
    prunes = [f"s0-imp-p2-c{run}-prune" for run in (0, 1)]
    one, other = (json.loads((folder / name / "metrics.json").read_text()) for name in prunes)
    assert one["layers"] == other["layers"]
    assert len(set(one["layers"].values())) > 3


@pytest.mark.parametrize("allocation", ["uniform_plus", "lamp", "random"])
def test_every_allocation_runs(first, tmp_path, allocation):
    project = first[0].copy(tmp_path / "project")
    project.edit("params.yaml", "allocation: erk", f"allocation: {allocation}")
    project.edit("params.yaml", f"methods: [{', '.join(METHODS)}]", "methods: [imp]")
    output = project.run("dvc", "repro")
    assert "s0-p1-prune" in ran(output)
    assert float(rows(project)["imp"]["sparsity"]) == pytest.approx(0.8, abs=1e-4)
