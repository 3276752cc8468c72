"""The report says what the artifacts hold: arithmetic by hand, the paper's rows, and every gap."""

import base64
import csv
import json
import math
import random
import shutil
import zlib
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from pipeline import registry
from pipeline.channels.products import macs
from pipeline.config.experiment import RECIPES, Experiment
from pipeline.evaluate.corruption_error import mean_corruption_error
from pipeline.evaluate.corruptions.constants import NAMES_15, NAMES_19
from pipeline.models.build import build as network_of
from pipeline.plan.build import build
from pipeline.plan.plan import Plan, Result
from pipeline.report.figures import style
from pipeline.report.figures.layers import depth
from pipeline.report.labels import looks
from pipeline.report.load import read
from pipeline.report.metrics_json import headline
from pipeline.report.page import page as page_of
from pipeline.report.paper import lookup
from pipeline.report.statistics import by_seed, difference, spread
from pipeline.report.tables.corruptions import FAMILIES
from pipeline.report.write import DRAWN, write
from pipeline.track import ui_views

ROOT = Path(__file__).parent.parent
IMAGENET = {"dataset": "ImageNet", "arch": "ResNet-50", "test_examples": 50_000}
BASE = {
    "dense": [0.970],
    "sms_uniform": [0.972, 0.968, 0.951],
    "sms_greedy": [0.971, 0.967, 0.948],
    "sms_learned": [0.972, 0.969, 0.950],
    "sms_distilled": [0.973, 0.969, 0.952],
    "sms_model_stock": [0.970, 0.965, 0.945],
    "sms_wise": [0.972, 0.967, 0.949],
    "imp": [0.966, 0.958, 0.932],
    "imp_mx": [0.967, 0.961, 0.938],
    "imp_reprune": [0.0, 0.0, 0.905],
}
LAYERS = ["conv1", *(f"stages.{s}.{b}.conv{c}" for s in range(3) for b in (0,) for c in (1, 2)),
          "stages.1.0.shortcut.0", "stages.2.0.shortcut.0", "fc"]  # fmt: skip
Change = Callable[[Result, str, dict[str, Any]], None]


def params(recipe: str = "digits", **changes: Any) -> Experiment:
    """Return a recipe's experiment with ``changes``, a section's keys given as a dictionary."""
    own = yaml.safe_load((ROOT / "params.yaml").read_text())
    own |= {"recipe": recipe, "seed": None, "seeds": [0]}
    merged = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    for source in (own, changes):
        for key, value in source.items():
            if isinstance(value, dict):
                kept = {k: v for k, v in value.items() if v is not None}
                merged[key] = merged.get(key, {}) | kept
            elif value is not None:
                merged[key] = value
    merged.pop("seed", None)
    return Experiment.model_validate(merged)


def plausible(row: Result, rng: random.Random) -> dict[str, dict[str, Any]]:
    """Return metrics of the three measuring stages as they could come out."""
    base = BASE.get(row.method, [0.9, 0.88, 0.86])
    place = min(max(row.phase - 1, 0), len(base) - 1)
    accuracy = base[place] + rng.gauss(0, 0.003)
    recall = {str(k): min(1.0, accuracy + rng.gauss(0.03 - 0.008 * k, 0.01)) for k in range(10)}
    groups = {
        k: {"recall": r, "n": 36, "low": max(0.0, r - 0.1), "high": min(1.0, r + 0.04)}
        for k, r in recall.items()
    }
    worst = min(recall, key=lambda k: recall[k])
    layers = {
        name: {
            "macs": 1000,
            "weights": 100,
            "sparsity": row.sparsity * (0.6 + 0.4 * place / len(LAYERS)) + rng.uniform(0, 0.02),
        }
        for place, name in enumerate(LAYERS)
    }
    shared = random.Random("corruptions")
    drop = {name: shared.uniform(0.0, 0.1) + rng.gauss(0.01, 0.002) for name in NAMES_19}
    by_corruption = {
        name: [accuracy - drop[name] * severity for severity in range(1, 6)] for name in NAMES_19
    }
    return {
        "evaluate": {
            "test_accuracy": accuracy,
            "test_loss": 0.1,
            "test_examples": 360,
            "val_accuracy": accuracy + 0.004,
            "calibration_error": 0.012,
            "worst_class": recall[worst],
            "worst_class_name": worst,
            "sparsity": row.sparsity,
            "nonzeros": round(75000 * (1 - row.sparsity)),
            "speedup": 1 / (1 - 0.9 * row.sparsity),
            "macs": 900_000,
            "layers": layers,
            "groups": {"class": {"groups": groups, "worst_group": worst}},
        },
        "compare": {
            "best_candidate": {
                "candidate": 1,
                "val_accuracy": accuracy,
                "test_accuracy": accuracy - 0.008,
            },
            "mean_candidate": {"val_accuracy": accuracy, "test_accuracy": accuracy - 0.011},
            "ensemble": {"val_accuracy": accuracy, "test_accuracy": accuracy + 0.003},
            "included": list(range(len(row.candidates))),
            "l2_mean": 3.2,
            "l2_max": 3.4,
            "angle_mean_degrees": 21.5,
        },
        "robustness": {
            "by_corruption": by_corruption,
            "mean_15": fmean(fmean(by_corruption[name]) for name in NAMES_15),
            "mean_19": fmean(fmean(by_corruption[name]) for name in NAMES_19),
            "synthetic": True,
        },
    }


def put(folder: Path, name: str, value: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value, sort_keys=True))


def made(artifacts: Path, experiment: Experiment, change: Change | None = None) -> Plan:
    """Plan ``experiment`` and leave in ``artifacts`` what its stages could have left."""
    plan = build(experiment)
    for name, node in plan.nodes.items():
        put(artifacts / name, "metrics.json", {"test_accuracy": 0.94})
        if node.script in {"pretrain", "retrain"}:
            epoch = {"accuracy": 0.8, "learning_rate": 0.1, "loss": 0.5, "val_accuracy": 0.81}
            put(artifacts / name, "history.json", [{"epoch": e, **epoch} for e in (1, 2)])
    for row in plan.rows:
        stages = {"evaluate": row.evaluate, "compare": row.compare, "robustness": row.robustness}
        metrics = plausible(row, random.Random(f"{row.method} {row.phase} {row.seed}"))
        for stage, node_name in stages.items():
            if node_name is not None:
                if change is not None:
                    change(row, stage, metrics[stage])
                put(artifacts / node_name, "metrics.json", metrics[stage])
        for number, name in enumerate(row.candidates):
            put(
                artifacts / name,
                "metrics.json",
                {"test_accuracy": metrics["evaluate"]["test_accuracy"] - 0.016 + number / 250},
            )
        (artifacts / row.model).mkdir(exist_ok=True)
        (artifacts / row.model / "model.safetensors").write_bytes(b"x" * 2500)
    return plan


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """Three seeds with round accuracies: uniform 95 to 97, IMP m times longer 94, greedy 90."""
    folder = tmp_path_factory.mktemp("three")

    def change(row: Result, stage: str, metrics: dict[str, Any]) -> None:
        if row.phase != 3:
            return
        if stage == "evaluate" and row.method in {"sms_uniform", "imp_mx", "sms_greedy"}:
            own = {"sms_uniform": 0.95 + row.seed / 100, "imp_mx": 0.94, "sms_greedy": 0.90}
            metrics["test_accuracy"] = own[row.method]
        if stage == "compare" and row.method == "sms_greedy":
            metrics["best_candidate"]["test_accuracy"] = 0.93 + row.seed / 1000

    plan = made(folder / "artifacts", params(seeds=[0, 1, 2]), change)
    write(plan, folder / "artifacts", folder / "reports")
    return plan, folder


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_spread_by_hand():
    """Three values: (0.9 + 0.92 + 0.97) / 3 = 0.93, std = sqrt(0.0026 / 2)."""
    found = spread([0.9, 0.92, 0.97])
    assert found is not None
    assert (found.n, found.mean) == (3, pytest.approx(0.93))
    assert found.std == pytest.approx(math.sqrt(0.0013))
    assert spread([]) is None
    one = spread([0.5])
    assert one is not None
    assert (one.n, one.mean, one.std) == (1, 0.5, None)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_spread_is_the_sample_deviation(values: list[float]):
    found = spread(values)
    assert found is not None
    assert found.mean == pytest.approx(fmean(values))
    assert found.std == pytest.approx(stdev(values), abs=1e-12)


def test_difference_by_hand():
    """Points 1, 2, 3: mean 2, std 1, interval 2 ± 4.302653 / sqrt(3), t from a table."""
    found = difference({0: 0.95, 1: 0.96, 2: 0.97, 3: 0.1}, {2: 0.94, 1: 0.94, 0: 0.94, 4: 0.9})
    assert found is not None
    assert found.interval is not None
    assert (found.n, found.wins) == (3, 3)
    assert (found.mean, found.std) == (pytest.approx(0.02), pytest.approx(0.01))
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert found.interval == (pytest.approx(0.02 - half), pytest.approx(0.02 + half))
    assert found.reading == "not significant"


@pytest.mark.parametrize(
    ("deltas", "reading"),
    [
        ([0.02], "one seed: no interval"),
        ([0.02, 0.02, 0.02], "equal in all seeds: no interval"),
        ([0.020, 0.021, 0.022], "better"),
        ([-0.020, -0.021, -0.022], "worse"),
        ([0.020, -0.021, 0.022], "not significant"),
    ],
)
def test_a_claim_needs_a_spread(deltas: list[float], reading: str):
    theirs = dict.fromkeys(range(len(deltas)), 0.5)
    found = difference({seed: 0.5 + d for seed, d in enumerate(deltas)}, theirs)
    assert found is not None
    assert found.reading == reading
    assert difference({0: 0.5}, {1: 0.5}) is None


@given(st.dictionaries(st.integers(0, 9), st.floats(0, 1), min_size=1), st.floats(0, 1))
def test_a_difference_turns_its_sign_with_its_sides(ours: dict[int, float], constant: float):
    theirs = dict.fromkeys(ours, constant)
    there, back = difference(ours, theirs), difference(theirs, ours)
    assert there is not None
    assert back is not None
    assert there.mean == pytest.approx(-back.mean)
    opposite = {"better": "worse", "worse": "better"}
    assert back.reading == opposite.get(there.reading, there.reading)


def test_one_row_per_method_phase_and_seed(three: tuple[Plan, Path]):
    plan, folder = three
    found = rows(folder / "reports/results.csv")
    keys = {(row["method"], int(row["phase"]), int(row["seed"])) for row in found}
    assert len(found) == len(keys) == 3 * (1 + 4 * 3 + 1)
    assert keys == {(row.method, row.phase, row.seed) for row in plan.rows}
    own = next(
        r for r in found if (r["method"], r["phase"], r["seed"]) == ("sms_uniform", "3", "1")
    )
    assert float(own["test_score"]) == 0.96
    assert own["metric"] == "accuracy"
    assert float(own["stored_bytes"]) == 2500
    assert own["included"] == "3.0"


def test_summary_states_mean_deviation_and_n(three: tuple[Plan, Path]):
    found = {
        (row["method"], row["phase"], row["measure"]): row
        for row in rows(three[1] / "reports/results_summary.csv")
    }
    own = found["sms_uniform", "3", "test_score"]
    assert own["n"] == "3"
    assert float(own["mean"]) == pytest.approx(0.96)
    assert float(own["std"]) == pytest.approx(0.01)
    assert ("imp_reprune", "1", "test_score") not in found
    assert ("imp", "3", "best_candidate_test_score") not in found


def test_page_says_who_wins_and_by_how_much(three: tuple[Plan, Path]):
    """Uniform gains 1, 2, 3 points on 94; greedy's 90 lies 3.0, 3.1, 3.2 below its best."""
    page = (three[1] / "reports/results.md").read_text()
    assert "| SMS uniform | 97." in page
    assert "| 96.00 ± 1.00 |" in page
    assert "- 2.75 points above IMP (n = 3" in page
    assert "- 5.41 points above IMP-RePrune (n = 3" in page
    assert (
        "2.00 points above IMP 3× longer (n = 3, 95 % interval -0.48 to +4.48: not significant)"  # noqa: RUF001
        in page
    )
    assert (
        "SMS greedy is\n\n- 3.10 points below its best candidate "
        "(n = 3, 95 % interval -3.35 to -2.85: worse)"
    ) in page
    assert "The test set has 360 examples; one is 0.28 points." in page
    assert "**Synthetic**" in page
    assert "## Missing" not in page
    assert "One seed" not in page


def test_metrics_are_few_and_right(three: tuple[Plan, Path]):
    metrics = json.loads((three[1] / "reports/metrics.json").read_text())
    uniform = metrics["sms_uniform"]
    assert metrics["metric"] == "accuracy"
    assert (uniform["test_score"], uniform["over_imp_mx"]) == (0.96, 0.02)
    assert metrics["sms_greedy"]["over_best_candidate"] == -0.031
    assert {"p1", "p2", "ood_accuracy", "test_worst_group"} < uniform.keys()
    assert metrics["sparsity"] == 0.95
    count = sum(len(value) if isinstance(value, dict) else 1 for value in metrics.values())
    assert count <= 30


def test_data_for_interactive_plots(three: tuple[Plan, Path]):
    accuracy = rows(three[1] / "reports/accuracy.csv")
    assert accuracy[0].keys() == {"method", "phase", "seed", "sparsity", "test_score"}
    assert len(accuracy) == 42
    training = rows(three[1] / "reports/training.csv")
    nodes = [n for n in three[0].nodes.values() if n.script in {"pretrain", "retrain"}]
    assert len(training) == 2 * len(nodes)
    assert {"node", "phase", "epoch", "val_accuracy", "loss"} < training[0].keys()


def test_equal_artifacts_give_equal_bytes(three: tuple[Plan, Path], tmp_path: Path):
    plan, folder = three
    write(plan, folder / "artifacts", tmp_path)
    again = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    first = folder / "reports"
    assert again == {p.relative_to(first): p.read_bytes() for p in first.rglob("*") if p.is_file()}
    assert len([path for path in again if path.suffix == ".png"]) == 5


def test_figures_show_something(three: tuple[Plan, Path]):
    files = list((three[1] / "reports/figures").iterdir())
    assert len(files) == 5
    for file in files:
        picture = imread(file)
        assert picture.shape[1] == 1300  # 6.5 inches at 200 dots
        assert 0.01 < (picture[..., :3].min(axis=2) < 0.9).mean() < 0.6


def test_a_single_seed_claims_nothing(tmp_path: Path):
    plan = made(tmp_path / "artifacts", params(phases=1, methods=["sms", "imp"], merge=["uniform"]))
    results = read(plan, tmp_path / "artifacts")
    page, metrics = page_of(results), headline(results)
    assert "One seed gives no interval" in page
    assert "±" not in page.replace("seed by seed; ± is", "")
    assert "IMP 3" not in page
    assert "over_imp_mx" not in metrics["sms_uniform"]
    assert metrics["sms_uniform"]["over_best_candidate"] == pytest.approx(0.008)


def test_gaps_are_named_and_the_rest_is_reported(three: tuple[Plan, Path], tmp_path: Path):
    plan, folder = three
    artifacts = tmp_path / "artifacts"
    shutil.copytree(folder / "artifacts", artifacts)
    for name in ("s1-sms_uniform-p3-eval", "s0-imp-p3-c0-ood", "s2-sms_greedy-p2-compare"):
        shutil.rmtree(artifacts / name)
    (artifacts / "s0-dense-eval" / "metrics.json").write_text('{"test_acc')
    metrics = write(plan, artifacts, tmp_path / "reports", without=["s0-imp-p2-c0-eval"])
    page = (tmp_path / "reports/results.md").read_text()
    assert "96.00 ± 1.41 (n = 2)" in page
    missing = page.split("## Missing")[1].split("## Files")[0]
    assert missing.count("`") == 2 * 5
    assert (
        "5 stages have not been run, or not with the present parameters and code: `s0-" in missing
    )
    assert metrics["sms_uniform"]["test_score"] == 0.96
    stale = [r for r in rows(tmp_path / "reports/accuracy.csv") if r["method"] == "imp"]
    assert len(stale) == 8


def test_nothing_at_all_is_a_report_too(tmp_path: Path):
    plan = build(params())
    metrics = write(plan, tmp_path / "artifacts", tmp_path / "reports")
    page = (tmp_path / "reports/results.md").read_text()
    assert f"{len(plan.nodes)} stages have not been run" in page
    assert len(list((tmp_path / "reports/figures").iterdir())) == 5
    assert metrics["sms_uniform"] == {}
    json.loads((tmp_path / "reports/metrics.json").read_text())


@pytest.mark.parametrize(
    ("method", "phase", "role", "mean", "std"),
    [
        ("sms_uniform", 3, "model", 72.67, 0.29),
        ("sms_uniform", 3, "best_candidate", 71.77, 0.04),
        ("sms_uniform", 3, "mean_candidate", 71.41, 0.09),
        ("sms_greedy", 2, "model", 75.34, 0.15),
        ("imp", 1, "model", 75.54, 0.41),
        ("imp_mx", 3, "model", 70.92, 0.07),
        ("imp_reprune", 3, "model", 68.19, 0.44),
        ("dense", 0, "model", 76.5, 0.1),
    ],
)
def test_paper_row_of_cifar100(method: str, phase: int, role: str, mean: float, std: float):
    """Table 1, CIFAR-100 / WRN-20 at 98 % with m = 3, read from the page."""
    found = lookup.lookup(params("cifar100_wrn20"), method, phase, role)
    assert found is not None
    assert (found.mean, found.std) == (mean, std)


def test_paper_rows_need_the_same_experiment():
    wrn = "cifar100_wrn20"
    for own, ood, mean in (
        (params(wrn, m=5), False, 72.90),
        (params(wrn, target_sparsity=0.9), False, 75.98),
        (params(wrn), True, 44.18),
        (params(wrn, target_sparsity=0.9, paper=IMAGENET), True, 38.70),
    ):
        found = lookup.lookup(own, "sms_uniform", 3, ood=ood)
        assert found is not None
        assert found.mean == mean
    dense = lookup.lookup(params(wrn, paper=IMAGENET), "dense", 0, ood=True)
    assert dense is not None
    assert (dense.mean, dense.std) == (40.35, 0.30)
    assert lookup.lookup(params("cifar10_resnet18"), "imp", 3) is not None
    assert lookup.lookup(params(wrn, m=4), "imp", 3) is not None
    for other in (
        params(wrn, m=4),
        params(wrn, phases=2),
        params(wrn, target_sparsity=0.95),
        params(wrn, retrain={"epochs": 5}),
        params(wrn, retrain={"schedule": "LLR"}),
        params(wrn, retrain={"vary": "weight_decay"}),
        params(wrn, prune={"allocation": "uniform"}),
        params(wrn, pretrain={"epochs": 20}),
        params(wrn, network={"name": "resnet20"}),
        params("digits"),
    ):
        assert lookup.lookup(other, "sms_uniform", 3) is None
    assert lookup.departures(params(wrn, pretrain={"epochs": 20})) == [
        "pretrain.epochs is 20, not 200"
    ]
    assert lookup.departures(params(wrn, data={"path": "elsewhere"})) == []


@pytest.mark.parametrize(
    ("recipe", "weights", "expected"),
    [
        ("cifar100_wrn20", None, []),
        ("cifar100_wrn20", "own.pth", ["network.weights is own.pth, not null"]),
        ("cityscapes_pspnet", "resnet101.pth", []),
        ("cityscapes_pspnet", None, ["network.weights is null, not a file"]),
        ("wmt16_t5small", None, []),
        ("wmt16_t5small", "t5-small.safetensors", []),
    ],
)
def test_a_start_that_the_paper_has_too_is_no_departure(recipe, weights, expected):
    """Pretrained backbones for segmentation (appendix A.1); of T5's weights it says nothing."""
    assert lookup.departures(params(recipe, network={"weights": weights})) == expected


def test_paper_rows_of_filters():
    """Table 11, three phases to 60 %, and Table 12, one shot to 50 %, read from the page."""
    filters = {"structure": "filters"}
    wrn = params("cifar100_wrn20", target_sparsity=0.6, prune=filters)
    assert lookup.departures(wrn) == []
    for method, phase, mean in (("sms_uniform", 3, 75.34), ("imp", 1, 74.96), ("imp_mx", 2, 74.84)):
        found = lookup.lookup(wrn, method, phase)
        assert found is not None
        assert (found.mean, found.table) == (mean, 11)
    one_shot = params("cifar10_resnet18", target_sparsity=0.5, phases=1, prune=filters)
    found = lookup.lookup(one_shot, "sms_greedy", 1)
    assert found is not None
    assert (found.mean, found.table) == (94.70, 12)
    assert lookup.lookup(params("cifar100_wrn20", target_sparsity=0.6), "imp", 1) is None
    assert lookup.lookup(params("cifar100_wrn20", prune=filters), "imp", 1) is None


def test_paper_rows_of_pruning_during_training():
    """Table 2, ResNet-50 on ImageNet at 80 %, read from the page; it has no earlier phases."""
    shared = {"paper": IMAGENET, "target_sparsity": 0.8}
    own = params("cifar100_wrn20", **shared, sparsify={"mask_interval": 0})
    for method, mean in (("bimp_sms", 75.76), ("gmp", 73.92), ("dpf_sms", 75.85), ("dst", 72.32)):
        found = lookup.lookup(own, method, 3)
        assert found is not None
        assert (found.mean, found.table) == (mean, 2)
        assert lookup.lookup(own, method, 2) is None
        assert lookup.lookup(own, method, 3, "best_candidate") is None
    assert lookup.lookup(own, "str", 3) is None  # the paper leaves it out
    for other in ({"target_sparsity": 0.75}, {"prune": {"structure": "filters"}}, {"m": 7}):
        found = lookup.lookup(params("cifar100_wrn20", **shared | other), "gmp_sms", 3)
        assert found is None, other
    short = params("cifar100_wrn20", **shared, sparsify={"epochs": 2, "pruning_steps": 1})
    assert lookup.lookup(short, "gmp", 3) is None
    refreshed = params("cifar100_wrn20", **shared, sparsify={"mask_interval": 16})
    assert lookup.lookup(refreshed, "dpf", 3) is lookup.lookup(refreshed, "dpf_sms", 3) is None
    assert lookup.lookup(refreshed, "gmp", 3) is not None
    assert params("imagenet_resnet50").sparsify.mask_interval == 0


def test_page_says_what_removed_filters_save(tmp_path: Path):
    """Two seeds, speed-ups 2 and 3 for one image and 4 and 5 for 64: 2.50 and 4.50."""
    experiment = params(
        seeds=[0, 1], phases=1, methods=["imp"], prune={"structure": "filters"}, target_sparsity=0.5
    )
    plan = made(tmp_path / "artifacts", experiment)
    for row in plan.rows:
        if row.shrink is not None:
            times = {"masked_ms": 6.0, "removed_ms": 2.0}
            measured = {
                "parameters": {"dense": 100, "masked": 60, "removed": 30 + 2 * row.seed},
                "bytes": {"dense": 400, "masked": 260, "removed": 1500},
                "macs": {"dense": 800, "removed": 200},
                "latency": {
                    "batch_1": {**times, "speedup": 2.0 + row.seed},
                    "batch_64": {**times, "speedup": 4.0 + row.seed},
                },
                "difference": 1e-7,
                "filters": {"conv1": {"kept": 8, "filters": 16}},
            }
            put(tmp_path / "artifacts" / row.shrink, "metrics.json", measured)
    assert sum(row.shrink is not None for row in plan.rows) == 2
    write(plan, tmp_path / "artifacts", tmp_path / "reports")
    page = (tmp_path / "reports/results.md").read_text()
    line = next(x for x in page.splitlines() if x.startswith("| IMP |") and "2.50 ± 0.71" in x)
    assert "| 4.0 ± 0.0 | 2.50 ± 0.71 | 4.50 ± 0.71 | 6.00 ± 0.00 | 2.00 ± 0.00 |" in line
    assert "| 31 ± 1 |" in line
    assert "| 1.5 ± 0.0 |" in line
    assert "| conv1 | 8 | 16 |" in page
    assert "filters pruned by L2 norm, an equal share of each layer" in page
    assert rows(tmp_path / "reports/filters.csv")[0]["kept"] == "8"
    own = [r for r in rows(tmp_path / "reports/results.csv") if r["method"] == "imp"]
    assert [float(r["measured_speedup_1"]) for r in own] == [2.0, 3.0]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["conv1.weight"], "(49.91 % of all prunable weights, as 1 layer stays dense: conv1)"),
        (
            [f"layer{i}.weight" for i in range(10)],
            "as 10 layers stay dense: "
            "layer0, layer1, layer2, layer3, layer4, layer5, layer6, layer7 and 2 more)",
        ),
        ([], "magnitude pruning, 2:4 along input channels; retraining"),
    ],
)
def test_page_names_the_pattern_and_the_layers_that_stay_dense(tmp_path: Path, names, words):
    settings_ = {"prune": {"structure": "2:4"}, "target_sparsity": 0.5, "phases": 2}
    plan = made(tmp_path / "artifacts", params(methods=["imp"], **settings_))
    for name, node in plan.nodes.items():
        if node.script == "prune":  # the first phase prunes less
            sparsity = 0.4991 if node.labels["phase"] == "2" else 0.2495
            metrics = {"dense_layers": names, "sparsity": sparsity}
            put(tmp_path / "artifacts" / name, "metrics.json", metrics)
    write(plan, tmp_path / "artifacts", tmp_path / "reports")
    page = (tmp_path / "reports/results.md").read_text()
    assert "2 phases to 50 % sparsity; magnitude pruning, 2:4 along input channels" in page
    assert words in page


def test_the_paper_has_no_rows_of_n_m(tmp_path: Path):
    settings_ = {"prune": {"structure": "2:4"}, "target_sparsity": 0.5, "phases": 1}
    two_of_four = params("cifar10_resnet18", **settings_)
    assert lookup.departures(two_of_four) == ["prune.structure is 2:4, not weights"]
    assert lookup.lookup(two_of_four, "sms_greedy", 1) is None


def test_page_names_layers_without_a_weight(tmp_path: Path):
    def change(row: Result, stage: str, metrics: dict[str, Any]) -> None:
        if stage == "evaluate" and row.method == "imp" and row.phase == 3:
            for layer in ("conv1", "fc")[row.seed :]:
                metrics["layers"][layer]["sparsity"] = 1.0

    plan = made(tmp_path, params(seeds=[0, 1], methods=["imp"], m=3), change)
    text = page_of(read(plan, tmp_path))
    assert "\n- IMP, phase 3: conv1 (1 of 2 seeds), fc (2 of 2 seeds)\n" in text
    assert text.count("Layers without a weight") == 1
    assert "Layers without a weight" not in page_of(
        read(made(tmp_path / "b", plan.params), tmp_path / "b")
    )


def test_a_report_on_weights_says_nothing_of_filters(three: tuple[Plan, Path]):
    assert not (three[1] / "reports/filters.csv").exists()
    assert "filters" not in (three[1] / "reports/results.md").read_text()
    assert "measured_speedup_1" not in rows(three[1] / "reports/results.csv")[0]


@pytest.mark.parametrize(
    "recipe", ["cifar10_resnet18", "cifar100_wrn20", "celeba_resnet18", "wmt16_t5small"]
)
def test_recipes_pretrain_as_table_3_says(recipe: str):
    own = params(recipe)
    assert own.paper is not None
    row = next(
        row
        for row in rows(lookup.FOLDER / "dense.csv")
        if (row["dataset"], row["arch"]) == (own.paper.dataset, own.paper.arch)
    )
    settings_ = own.pretrain
    assert settings_.epochs == int(row["epochs"])
    assert settings_.batch_size == int(row["batch_size"])
    assert settings_.weight_decay == float(row["weight_decay"])


@pytest.mark.parametrize("synthetic", [True, False])
def test_page_lays_our_row_beside_the_papers(tmp_path: Path, synthetic: bool):
    def change(row: Result, stage: str, metrics: dict[str, Any]) -> None:
        if stage == "robustness":
            metrics |= {"synthetic": synthetic, "about": "`data/C`", "images": 10_000}
        if stage == "evaluate" and (row.method, row.phase) == ("sms_uniform", 3):
            metrics["test_accuracy"] = 0.7301
        if stage == "compare" and (row.method, row.phase) == ("sms_uniform", 3):
            metrics["best_candidate"]["test_accuracy"] = 0.7150
        if stage == "evaluate":
            metrics["test_examples"] = 10_000

    plan = made(tmp_path / "artifacts", params("cifar100_wrn20"), change)
    page = page_of(read(lookup.measured(plan, tmp_path / "artifacts"), tmp_path / "artifacts"))
    assert "| SMS uniform | 3 (98 %) | 73.01 | 72.67 ± 0.29 | +0.34 | 1 |" in page
    for chosen, ours in (("by validation", 71.5), ("by test, as in the paper", 72.21)):
        line = f"| SMS uniform, best candidate ({chosen}) | 3 (98 %) | {ours:.2f} | 71.77 ± 0.04 |"
        assert line in page
    assert ("44.18 ± 0.43" in page) is not synthetic
    assert ("**Official**: `data/C`, 10,000 images" in page) is not synthetic
    assert ("so they are not compared" in page) is synthetic


def test_a_subset_of_the_data_stands_beside_no_number_of_the_paper(tmp_path: Path):
    plan = made(tmp_path / "artifacts", params("cifar100_wrn20"))  # of 360 examples
    write(plan, tmp_path / "artifacts", tmp_path / "reports")
    page = (tmp_path / "reports" / "results.md").read_text()
    assert "another experiment: the test split has 360 examples, not 10,000." in page
    assert "72.67" not in page


def test_a_schedule_that_the_paper_does_not_name_is_said(tmp_path: Path):
    """Table 8: Cityscapes in two phases."""
    own = params("cityscapes_pspnet", network={"weights": "r.pth"}, phases=2, target_sparsity=0.8)
    page = page_of(read(made(tmp_path, own), tmp_path))
    assert "2 phases to 90 % by a schedule that it does not name with 50 epochs a phase" in page
    assert "nan" not in page


def test_a_set_of_15_types_has_no_mean_over_19(tmp_path: Path):
    def change(row: Result, stage: str, metrics: dict[str, Any]) -> None:
        if stage == "robustness":
            del metrics["mean_19"]
            kept = {name: metrics["by_corruption"][name] for name in NAMES_15}
            metrics |= {"by_corruption": kept, "mean_15": 0.75, "synthetic": False}

    plan = made(tmp_path / "artifacts", params("cifar100_wrn20"), change)
    results = read(plan, tmp_path / "artifacts")
    page = page_of(results)
    assert "| dense | 75.00 | - | 100.0 |" in page
    assert "dense, mean of 15 corruptions" in page
    assert "mean of 19 corruptions" not in page
    assert headline(results)["dense"]["ood_accuracy"] == 0.75
    with style.look():
        DRAWN["corruptions"](results)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pretrain": {"epochs": 2}}, "another experiment: pretrain.epochs is 2, not 200."),
        ({"phases": 2}, "the paper's tables have 3 phases to 98 % by ALLR with 10 epochs a phase"),
    ],
)
def test_page_says_why_the_paper_has_no_row(tmp_path: Path, changes: dict[str, Any], reason: str):
    plan = made(tmp_path, params("cifar100_wrn20", **changes))
    page = page_of(read(plan, tmp_path))
    assert reason in page
    assert "72.67" not in page


def test_corruption_error_is_that_of_the_evaluation(three: tuple[Plan, Path]):
    """Computed here from tables, there from metrics: the same formula twice."""
    plan, folder = three
    results = read(plan, folder / "artifacts")
    own = by_seed(results, "imp", 3, "mce")
    for seed in range(3):
        model, dense = (
            json.loads((folder / "artifacts" / name / "metrics.json").read_text())["by_corruption"]
            for name in (f"s{seed}-imp-p3-c0-ood", f"s{seed}-dense-ood")
        )
        assert own[seed] == pytest.approx(mean_corruption_error(model, dense))
    assert by_seed(results, "dense", 0, "mce") == pytest.approx({0: 1.0, 1: 1.0, 2: 1.0})


def test_families_hold_the_19_corruptions():
    main = [name for family, names in FAMILIES.items() if family != "extra" for name in names]
    assert main == list(NAMES_15)
    assert main + FAMILIES["extra"] == list(NAMES_19)


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "wrn20"])
def test_layers_are_sorted_from_input_to_output(name: str):
    """Against the order in which the network calls them."""
    network = network_of(name, classes=10)
    called = list(macs(network, torch.zeros(1, 3, 32, 32)))
    assert sorted(called, key=depth)[0] == called[0]
    assert sorted(called, key=depth)[-1] == called[-1]
    convolutions = [layer for layer in called if "shortcut" not in layer]
    assert [layer for layer in sorted(called, key=depth) if layer in convolutions] == convolutions


@given(st.permutations(["layer2.0.conv1", "layer10.0.conv1", "stem.0", "layer1.9.conv1", "head"]))
def test_layer_numbers_count(names: list[str]):
    expected = ["stem.0", "layer1.9.conv1", "layer2.0.conv1", "layer10.0.conv1", "head"]
    assert sorted(names, key=depth) == expected


def crowd(row: Result, stage: str, metrics: dict[str, Any]) -> None:
    """Long names, many groups and layers, and a method that collapses."""
    if stage != "evaluate":
        return
    metrics["test_accuracy"] -= 0.5 if row.method == "imp_reprune" else 0.0
    some = next(iter(metrics["groups"]["class"]["groups"].values()))
    many = {f"a rather long class name {k}": some for k in range(100)}
    pairs = {f"{a}_{b}": some for a in ("young", "old") for b in ("blond", "not_blond")}
    metrics["groups"] = {"class": {"groups": many}, "hair_colour_by_age": {"groups": pairs}}
    metrics["layers"] = {
        f"encoder.stage{a}.block{b}.attention.projection{c}": {
            "sparsity": row.sparsity,
            "weights": 625,
        }
        for a in range(4)
        for b in range(10)
        for c in range(3)
    }


def unseen(figure: Figure) -> set[Text]:
    """Return the labels that matplotlib keeps for ticks outside an axis, which it does not draw."""
    labels = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high or not axes.axison:
                    labels |= {tick.label1, tick.label2}
                labels |= {label for label in (tick.label1, tick.label2) if not label.get_visible()}
    return labels


@pytest.mark.parametrize(
    ("changes", "change"),
    [
        ({"phases": 1, "methods": ["sms"], "merge": ["greedy"]}, None),
        ({"merge": registry.names("soup")}, None),
        pytest.param(
            {"phases": 10, "seeds": [0, 1], "target_sparsity": 0.995},
            crowd,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_all_text_lies_on_the_page_and_no_label_on_another(
    tmp_path: Path, changes: dict[str, Any], change: Change | None
):
    results = read(made(tmp_path, params(**changes), change), tmp_path)
    with style.look():
        for name, draw in DRAWN.items():
            figure = draw(results)
            figure.canvas.draw()
            page, hidden = figure.bbox.padded(1), unseen(figure)
            for text in figure.findobj(Text):
                box = text.get_window_extent()
                if text.get_text().strip() and text not in hidden:
                    assert page.contains(*box.min), f"{name}: {text.get_text()}"
                    assert page.contains(*box.max), f"{name}: {text.get_text()}"
            for axes in figure.axes:
                for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
                    boxes = [t.get_window_extent() for t in ticks if t not in hidden]
                    assert not any(a.overlaps(b) for a, b in pairwise(boxes)), name


def test_no_two_methods_look_alike():
    """Colour and marker, all that a dot plot shows, differ; also of methods that declare none."""
    plan = build(params(methods=registry.names("plan/methods"), merge=registry.names("soup")))
    methods = list(dict.fromkeys(row.method for row in plan.rows)) + [f"new{i}" for i in range(14)]
    assert len(methods) > 30
    drawn = looks(methods)
    assert len({(look.colour, look.marker) for look in drawn.values()}) == len(methods)


BREW = '''"""A soup of its own."""
LABEL = "Brew of {m}"
LOOK = ("sky", "o", "-", 2.0)
PAPER = {"prune_after_training": "SMS greedy"}
BASELINES = ("imp", "imp_mx")


def plan(work):
    work.set_method("brew")
    soup = work.pretrain()
    for phase in work.phases:
        pruned = work.prune(soup, phase)
        copies = [work.retrain(pruned, phase, candidate=j) for j in range(work.m)]
        soup = work.merge(copies, phase, "uniform")
        work.report(phase, soup, copies)
'''


def test_a_new_methods_file_is_all_that_the_report_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Label, look, the paper's number and baselines reach page, metrics, figure and MLflow."""
    (tmp_path / "brew.py").write_text(BREW)
    folder, known = import_module("pipeline.plan.methods"), registry.names
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    monkeypatch.setattr(
        registry, "names", lambda f: [*known(f), *(["brew"] if f == "plan/methods" else [])]
    )

    def change(row: Result, stage: str, metrics: dict[str, Any]) -> None:
        if stage == "evaluate":
            metrics["test_examples"] = 10_000

    experiment = params("cifar100_wrn20", methods=["imp", "imp_mx", "imp_reprune", "brew"])
    plan = made(tmp_path / "artifacts", experiment, change)
    metrics = write(plan, tmp_path / "artifacts", tmp_path / "reports")
    page = (tmp_path / "reports" / "results.md").read_text()
    theirs = lookup.lookup(experiment, "sms_greedy", 3)
    assert theirs is not None
    compared = page.split("## Comparison with the paper")[1].splitlines()
    line = next(line for line in compared if line.startswith("| Brew of 3 | 3 (98 %) |"))
    assert f"| {theirs.mean:.2f} ± {theirs.std:.2f} |" in line
    rivals = page.split("## Is the soup better?")[1].split("## Soups")[0]
    assert "| Brew of 3 | IMP | 3 (98 %) |" in rivals
    assert "| Brew of 3 | IMP 3\N{MULTIPLICATION SIGN} longer | 3 (98 %) |" in rivals
    assert "IMP-RePrune" not in rivals
    assert {"over_best_candidate", "over_imp"} < metrics["brew"].keys()
    assert "over_imp_mx" not in metrics["brew"]
    figure = DRAWN["accuracy"](read(plan, tmp_path / "artifacts"))
    drawn = {c.get_label(): c.lines[0] for c in figure.axes[0].containers}["Brew of 3"]
    assert (drawn.get_color(), drawn.get_marker()) == ("#56B4E9", "o")
    views = ui_views.tags(["brew"])
    state = json.loads(views["mlflow.sharedViewState.experiments"])["state"]
    packed = base64.b64decode(state.removeprefix("deflate;"))
    assert "metrics.`test_score/brew`" in zlib.decompress(packed).decode()
