"""IMP's relatives, SWA, alignment, allocations and their studies, through the whole graph."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pipeline.config.experiment import load as load_params
from pipeline.plan.build import build, studies
from pipeline.plan.plan import Plan
from pipeline.report.studies import alignment, interpolation, swa
from pipeline.report.studies.base import Study, read
from pipeline.storage.checkpoint import load, load_tensors
from tests.project import Project, ran, trained

ROOT = Path(__file__).parent.parent
OVER = ("mean", "max")  # of the pairs


def plan(method: str, **values: object) -> Plan:
    """Plan the default experiment with one method and other ``values``."""
    return build(load_params(ROOT / "params.yaml").with_values({"methods": [method], **values}))


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


# ---- pages of studies


def left(folder: Path, node: str, **metrics: object) -> None:
    (folder / node).mkdir(parents=True, exist_ok=True)
    (folder / node / "metrics.json").write_text(json.dumps(metrics))


def measured(of: Plan, folder: Path, name: str) -> Study:
    return read(of, name, studies()[name], folder)


def test_alignment_says_what_averaging_loses(tmp_path):
    """Means of 90 and 94 % sparsity from runs of 95 %: 5 points lost, and 1 with matching."""
    grid = {"alignment": {"own_dense": False}}
    of = plan("imp", phases=1, target_sparsity=0.95, studies=["alignment"], study=grid)
    found = {"imp_reprune": (0.90, 0.8), "imp_align": (0.94, 0.85)}
    for point in of.points:
        mean, accuracy = found[point.method]
        left(tmp_path, point.model, sparsity_of_mean=mean, test_accuracy=accuracy)
        left(tmp_path, point.nodes["interpolate"], test_error_barrier_mean=0.125)
        for run, own in zip(point.candidates, (0.91, 0.92, 0.93), strict=True):
            left(tmp_path, run, test_accuracy=own)
    study = measured(of, tmp_path, "alignment")
    rows = alignment.tabulate(study)
    assert rows["lost_sparsity"].tolist() == pytest.approx([0.05, 0.01])
    text = alignment.text(study, rows)
    plain = "| 95 % | one dense network | unchanged | 90.00 | 5.00 | 12.50 | 80.00 | 92.00 |"
    matched = "| 95 % | one dense network | matched | 94.00 | 1.00 | 12.50 | 85.00 | 92.00 |"
    assert plain in text
    assert matched in text


def test_interpolation_has_a_line_for_each_set_of_networks(tmp_path):
    of = plan("imp", phases=1, target_sparsity=0.9, studies=["interpolation"])
    losses = {f"{split}_loss_barrier_{k}": 0.25 for split in ("train", "val", "test") for k in OVER}
    errors = {"test_error_barrier_mean": 0.01, "test_error_barrier_max": 0.03}
    for point in of.points:
        left(tmp_path, point.nodes["interpolate"], **losses, **errors)
    study = measured(of, tmp_path, "interpolation")
    text = interpolation.text(study, interpolation.tabulate(study))
    numbers = "| 0.250 | 0.250 | 0.250 | 0.250 | 0.250 | 0.250 | 1.00 | 3.00 |"
    assert f"| 90 % | IMP runs {numbers}" in text
    assert f"| 90 % | SMS candidates {numbers}" in text


def test_swa_takes_the_difference_seed_by_seed_after_the_last_phase(tmp_path):
    """IMP+SWA 91 and 90, IMP 90 and 92 %: differences of 1 and -2 points, hence -0.5 ± 2.12."""
    grid = {"swa": {"schedules": ["LLR"]}}
    of = plan("imp", phases=2, seeds=[0, 1], studies=["swa"], study=grid)
    found = {("imp", 0): 0.9, ("imp", 1): 0.92, ("imp_swa", 0): 0.91, ("imp_swa", 1): 0.9}
    for point in of.points:
        accuracy = found[point.method, point.seed] if point.phase == 2 else 0.5
        left(tmp_path, point.model, test_accuracy=accuracy, val_accuracy=accuracy)
    study = measured(of, tmp_path, "swa")
    text = swa.text(study, swa.tabulate(study))
    assert "| LLR | 91.00 ± 1.41 | 90.50 ± 0.71 | -0.50 ± 2.12 |" in text


# ---- everything end to end


RELATIVES = ["imp_caa", "imp_cia", "imp_phases", "imp_reprune"]
EVERY_PHASE = ["imp_swa", "lottery_pools", "rewind", "sms_swa", "swamp"]
METHODS = f"methods: [{', '.join([*RELATIVES, *EVERY_PHASE, 'imp_align'])}]"
STUDIES = "studies: [interpolation, alignment]\n"


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Project, str]:
    """Return a project after its first run, under ERK, and what it printed."""
    project = Project.create(tmp_path_factory.mktemp("baselines") / "project")
    project.edit("params.yaml", "m: 3", "m: 2")
    project.edit("params.yaml", "methods: [sms, imp]", METHODS)
    project.edit("params.yaml", "allocation: global", "allocation: erk")
    project.edit("params.yaml", "epochs: null, schedule", "epochs: 2, schedule")
    with (project.root / "params.yaml").open("a") as file:
        file.write(f"swa: {{start: null, learning_rate: 0.02}}\nrewind: {{epoch: 1}}\n{STUDIES}")
    return project, project.run("dvc", "repro")


@pytest.fixture
def project(first) -> Project:
    return first[0]


def metrics(project: Project, name: str) -> dict:
    return json.loads((project.root / "artifacts" / name / "metrics.json").read_text())


def rows(project: Project, file: str) -> list[dict[str, str]]:
    with (project.root / "reports" / file).open() as lines:
        return list(csv.DictReader(lines))


@pytest.mark.slow
def test_every_stage_is_run_once_and_the_averages_share_their_runs(first):
    project, output = first
    stages = yaml.safe_load((project.root / "stages" / "dvc.yaml").read_text())["stages"]
    assert ran(output) == set(stages)
    # Not those of SWA, of rewinding and of the studies.
    others = re.compile(r"s0-(imp_swa|sms_swa|sms_uniform|early|rewind|swamp)|s100-")
    runs = {"s0-p1-c0", "s0-p1-c1", "s0-imp-p2-c0", "s0-imp-p2-c1"}
    longer = {"s0-phases4-p1-c0", *(f"s0-phases4-imp-p{phase}-c0" for phase in (2, 3, 4))}
    relatives = {name for name in trained(output) if not others.match(name)}
    assert relatives == {"s0-dense"} | runs | longer


@pytest.mark.slow
def test_every_method_has_its_rows_at_the_sparsity(project):
    found = {(r["method"], r["phase"]): r for r in rows(project, "results.csv")}
    assert found.keys() == {
        ("dense", "0"),
        *((method, phase) for method in EVERY_PHASE for phase in "12"),
        *((method, "2") for method in ("imp_align", *RELATIVES)),
    }
    for method in RELATIVES:
        assert float(found[method, "2"]["sparsity"]) == pytest.approx(0.8, abs=1e-4)
        assert 0 < float(found[method, "2"]["test_score"]) <= 1
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
def test_rewound_networks_train_the_last_epoch_again_from_the_early_one(project):
    dense, early, *others = (
        json.loads((project.root / "artifacts" / f"s0-{name}" / "history.json").read_text())
        for name in ("dense", "early1", "rewind-p1-c0", "rewind-p2-c0")
    )
    assert early == dense[:1]
    assert len(dense) == 2
    assert [[row["learning_rate"] for row in rows] for rows in others] == [
        [dense[1]["learning_rate"]]
    ] * 2
    last = [
        load(project.root / "artifacts" / f"s0-{name}" / "model.safetensors")
        for name in ("swamp-p2-c0", "swamp-p2-c1", "swamp-p2")
    ]
    for name, mask in last[2].masks.items():
        assert all(torch.equal(mask, each.masks[name]) for each in last)
        mean = (last[0].state[name] + last[1].state[name]) / 2
        torch.testing.assert_close(last[2].state[name], mean)


@pytest.mark.slow
def test_an_aligned_run_computes_what_the_run_does(project):
    folder = project.root / "artifacts"
    one, other = (
        load_tensors(folder / name / "predictions.safetensors")["test"]
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


def heights(measured: dict) -> list[float]:
    """Return the largest height of each pair's test error over the chord between its ends."""
    curves = [np.array(pair["curves"]["test_error"]) for pair in measured["pairs"]]
    return [
        (curve - np.interp(measured["shares"], [0, 1], [curve[0], curve[-1]])).max()
        for curve in curves
    ]


@pytest.mark.slow
def test_the_studies_have_numbers_and_pages(project):
    barriers = rows(project, "studies/interpolation.csv")
    assert {(row["method"], row["phase"]) for row in barriers} == {
        (method, phase) for method in ("sms_uniform", "imp_reprune") for phase in "12"
    }
    of = plan("sms", m=2, phases=2, studies=["interpolation"])
    expected = {
        (point.method, str(point.phase)): max(heights(metrics(project, point.nodes["interpolate"])))
        for point in of.points
    }
    found = {(row["method"], row["phase"]): row["test_error_barrier_max"] for row in barriers}
    assert {key: float(value) for key, value in found.items()} == pytest.approx(expected)
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


@pytest.mark.slow
def test_cia_is_the_plain_mean_and_caa_is_not(project):
    found = {row["method"]: row["test_loss"] for row in rows(project, "results.csv")}
    assert found["imp_cia"] == found["imp_reprune"]
    assert found["imp_caa"] != found["imp_reprune"]


@pytest.mark.slow
def test_the_report_names_the_relatives(project):
    report = (project.root / "reports" / "results.md").read_text()
    for label in ("IMP-RePrune (CAA)", "IMP-RePrune (CIA)", "IMP with 2× phases"):  # noqa: RUF001
        assert label in report


@pytest.mark.slow
def test_erk_gives_every_run_the_same_layer_sparsities(project):
    """By the layers' shapes alone, so networks that trained apart agree to the last weight."""
    one, other = (metrics(project, f"s0-imp-p2-c{run}-prune") for run in (0, 1))
    assert one["layers"] == other["layers"]
    assert len(set(one["layers"].values())) > 3


@pytest.mark.slow
@pytest.mark.parametrize("allocation", ["uniform_plus", "lamp", "random"])
def test_every_allocation_runs(first, tmp_path, allocation):
    project = first[0].copy(tmp_path / "project")
    project.edit("params.yaml", "allocation: erk", f"allocation: {allocation}")
    project.edit("params.yaml", METHODS, "methods: [imp]")
    project.edit("params.yaml", STUDIES, "")
    project.edit("params.yaml", "phases: null", "phases: 1")
    output = project.run("dvc", "repro")
    assert "s0-p1-prune" in ran(output)
    (imp,) = (row for row in rows(project, "results.csv") if row["method"] == "imp")
    assert float(imp["sparsity"]) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.slow
def test_a_soup_of_candidates_that_differ_in_an_option_of_retraining(first, tmp_path):
    """Candidate 0 without SAM and candidate 1 with it, both distilled and averaged by EMA."""
    project = first[0].copy(tmp_path / "project")
    retrain = "epochs: 2, average: ema, distill: 0.5, vary: sam, values: [sam], schedule: null}"
    project.edit("params.yaml", "epochs: 2, schedule: null, vary: seed, values: null}", retrain)
    project.edit("params.yaml", METHODS, "methods: [sms]")
    project.edit("params.yaml", STUDIES, "")
    output = project.run("dvc", "repro")
    candidates = {f"s0-{lineage}c{j}" for lineage in ("p1-", "sms_uniform-p2-") for j in (0, 1)}
    assert trained(output) == candidates, "the dense network is the one of before"
    stages = yaml.safe_load((project.root / "stages" / "dvc.yaml").read_text())["stages"]
    code = {
        name: {
            option
            for option in ("ema", "sam", "s2sam", "distill", "swa")
            if f"pipeline/train/{option}.py" in stages[name]["deps"]
        }
        for name in candidates
    }
    plain = {"ema", "distill", "swa"}
    assert {name: used - plain for name, used in code.items()} == {
        name: {"sam"} if name.endswith("c1") else set() for name in candidates
    }
    assert all(plain <= used for used in code.values())
    for name in (*candidates, "s0-sms_uniform-p2"):
        checkpoint = load(project.root / "artifacts" / name / "model.safetensors")
        for weight, mask in checkpoint.masks.items():
            pruned = checkpoint.state[weight][~mask]
            assert not pruned.any()
            assert not pruned.signbit().any()
    zero, one = (
        load(project.root / "artifacts" / f"s0-p1-c{j}" / "model.safetensors") for j in (0, 1)
    )
    assert all(torch.equal(mask, one.masks[name]) for name, mask in zero.masks.items())
    assert not torch.equal(zero.state["conv1.weight"], one.state["conv1.weight"])
    report = (project.root / "reports" / "results.md").read_text()
    assert "differ by sam" in report
    assert "averaged by EMA, distilled from the dense network (weight 0.5" in report
