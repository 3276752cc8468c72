"""SWA in phases and candidates, aligned IMP runs, and their studies, through the whole graph."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

from pipeline.checkpoint import load, load_tensors
from pipeline.params import load as load_params
from pipeline.plan.build import build
from pipeline.plan.nodes import Plan
from tests.project import Project, ran

ROOT = Path(__file__).parent.parent


def plan(method: str, **values: object) -> Plan:
    """Plan the default experiment with one method and other ``values``."""
    return build(load_params(ROOT / "params.yaml").changed({"methods": [method], **values}))


def retrained(of: Plan) -> list[dict]:
    return [node.arguments for node in of.nodes.values() if node.script == "retrain"]


def test_imp_swa_averages_every_epoch_unless_told_otherwise():
    assert {flags["swa_start"] for flags in retrained(plan("imp_swa"))} == {0.0}
    assert not any("swa_learning_rate" in flags for flags in retrained(plan("imp_swa")))
    later = plan("imp_swa", **{"swa.start": 0.75})
    assert {flags["swa_start"] for flags in retrained(later)} == {0.75}


@pytest.mark.parametrize("schedule", ["FT", "LRW", "SLR", "CLR", "LLR", "ALLR"])
def test_imp_swa_takes_every_schedule(schedule):
    of = plan("imp_swa", **{"retrain.schedule": schedule})
    assert {flags["schedule"] for flags in retrained(of)} == {schedule}


def test_sms_swa_has_a_schedule_of_its_own():
    own = [(flags["swa_start"], flags["swa_learning_rate"]) for flags in retrained(plan("sms_swa"))]
    assert set(own) == {(0.5, 0.05)}, "half of pretraining's rate, as 0.05 of 0.1"
    other = plan("sms_swa", **{"swa.start": 0.0, "swa.learning_rate": 0.02})
    assert {(f["swa_start"], f["swa_learning_rate"]) for f in retrained(other)} == {(0.0, 0.02)}


def test_a_start_of_zero_is_said_and_a_weight_decay_of_zero_too():
    """0 equals False, which leaves a flag out."""
    of = plan("imp_swa", **{"pretrain.weight_decay": 0.0})
    assert {flags["weight_decay"] for flags in retrained(of)} == {0.0}


def test_imp_align_trains_nothing_that_imp_reprune_does_not():
    plain, aligned = plan("imp_reprune"), plan("imp_align")
    assert sorted(map(str, retrained(plain))) == sorted(map(str, retrained(aligned)))
    kinds = [node.script for node in aligned.nodes.values()]
    assert kinds.count("align") == 2
    (row,) = (row for row in aligned.rows if row.method == "imp_align")
    assert row.candidates == ("s0-imp-p3-c0", "s0-imp_align-p3-run1", "s0-imp_align-p3-run2")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """Return a project after its first run."""
    own = Project.create(tmp_path_factory.mktemp("baselines") / "project")
    own.edit("params.yaml", "m: 3", "m: 2")
    own.edit("params.yaml", "[sms, imp]", "[imp_swa, sms_swa, imp_align]")
    own.edit("params.yaml", "epochs: null, schedule", "epochs: 2, schedule")
    with (own.root / "params.yaml").open("a") as file:
        file.write("swa: {start: null, learning_rate: 0.02}\nstudies: [interpolation, alignment]\n")
    output = own.run("dvc", "repro")
    stages = yaml.safe_load((own.root / "stages" / "dvc.yaml").read_text())["stages"]
    assert ran(output) == set(stages)
    return own


def metrics(project: Project, name: str) -> dict:
    return json.loads((project.root / "artifacts" / name / "metrics.json").read_text())


def rows(project: Project, file: str) -> list[dict[str, str]]:
    with (project.root / "reports" / file).open() as lines:
        return list(csv.DictReader(lines))


@pytest.mark.slow
def test_every_method_has_its_rows_at_the_sparsity(project):
    found = {(r["method"], r["phase"]): r for r in rows(project, "results.csv")}
    assert found.keys() >= {
        *(("imp_swa", "1"), ("imp_swa", "2"), ("sms_swa", "1"), ("sms_swa", "2")),
        ("imp_align", "2"),
    }
    for (method, phase), row in found.items():
        if method != "dense":
            measured = metrics(project, f"{row['model']}-eval")["sparsity"]
            assert measured == pytest.approx(float(row["sparsity"]), abs=1e-4), (method, phase)


@pytest.mark.slow
def test_swa_candidates_settle_at_their_rate(project):
    folder = project.root / "artifacts"
    for name in ("s0-sms_swa-p1-c1", "s0-sms_swa-p2-c0"):
        history = json.loads((folder / name / "history.json").read_text())
        assert history[-1]["learning_rate"] == 0.02
    swa = json.loads((folder / "s0-imp_swa-p2-c0" / "history.json").read_text())
    assert swa[-1]["learning_rate"] < 0.02, "IMP+SWA keeps ALLR, which ends near 0"


@pytest.mark.slow
def test_an_aligned_run_computes_what_the_run_does(project):
    folder = project.root / "artifacts"
    one, other = (
        load_tensors(folder / name / "logits.safetensors")["test"]
        for name in ("s0-imp-p2-c1", "s0-imp_align-p2-run1")
    )
    assert torch.allclose(one, other, atol=1e-3)
    checkpoint = load(folder / "s0-imp_align-p2-run1" / "model.safetensors")
    for name, mask in checkpoint.masks.items():
        assert not checkpoint.state[name][~mask].any()
    found = metrics(project, "s0-imp_align-p2-run1")
    assert found["agreement_after"] >= found["agreement_before"]
    average = metrics(project, "s0-imp_align-p2")
    assert average["sparsity_of_mean_unaligned"] == pytest.approx(found["sparsity_of_mean_before"])
    assert average["sparsity_of_mean"] == pytest.approx(found["sparsity_of_mean_after"])


@pytest.mark.slow
def test_the_studies_have_numbers_and_pages(project):
    barriers = rows(project, "studies/interpolation.csv")
    assert {(row["method"], row["phase"]) for row in barriers} == {
        (method, phase) for method in ("sms_uniform", "imp_reprune") for phase in "12"
    }
    assert all(float(row["test_error_barrier_max"]) >= 0 for row in barriers)
    averages = rows(project, "studies/alignment.csv")
    assert len(averages) == 2 * 2 * 2  # dense networks, phases, matched or not
    for row in averages:
        assert 0 <= float(row["lost_sparsity"]) < float(row["sparsity"])
    lost = {(r["dense"], r["method"], r["phase"]): float(r["lost_sparsity"]) for r in averages}
    assert lost["one", "imp_reprune", "1"] == pytest.approx(0, abs=1e-4), "phase 1 shares its mask"
    assert lost["own", "imp_reprune", "1"] > 0.1, "other dense networks share no mask"
    strangers = metrics(project, "s0-own_dense-imp_align-p1-run1")
    assert strangers["agreement_after"] > strangers["agreement_before"]
    for study in ("interpolation", "alignment"):
        page = (project.root / "reports" / "studies" / f"{study}.md").read_text()
        assert "Missing" not in page
        assert (project.root / "reports" / "studies" / "figures" / f"{study}.png").exists()
