"""Studies: they share the methods' work, name it lastingly, and report what was measured."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.image import imread
from matplotlib.text import Text
from pandas import read_csv

from pipeline.config.experiment import RECIPES, Experiment, load
from pipeline.errors import UserError
from pipeline.plan import dvc_yaml
from pipeline.plan.build import build, studies
from pipeline.plan.plan import Plan
from pipeline.report.figures import style
from pipeline.report.load import read as read_rows
from pipeline.report.page import page
from pipeline.report.paper.studies import l2_distances, published, reference
from pipeline.report.studies import (
    alignment,
    dynamic_masks,
    interpolation,
    landscape,
    latency,
    length,
    merging,
    more_phases,
    pairs,
    quantise,
    schedule,
    soup_size,
    sparsity,
    subgroups,
    swa,
    variation,
)
from pipeline.report.studies.base import best, over_seeds, points_table, read
from pipeline.report.write import write_studies
from tests.project import PARAMS, Project, ran
from tests.test_report import unseen

ROOT = Path(__file__).parent.parent
ALL = [
    *("alignment", "dynamic_masks", "interpolation", "landscape", "latency", "length", "merging"),
    *("more_phases", "pairs", "quantise", "schedule", "soup_size", "sparsity", "subgroups", "swa"),
    "variation",
]
SMALL = {
    "dynamic_masks": {"sparsities": [0.9, 0.98]},
    "latency": {"sparsities": [0.9, 0.98], "allocations": ["global", "latency"]},
    "length": {"sparsities": [0.9], "epochs": [1, 3]},
    "merging": {"rules": ["uniform", "greedy"]},
    "more_phases": {"m": [3]},
    "pairs": {"candidates": 3},
    "quantise": {"bits": [8, 4], "distill": [0, 0.5]},
    "schedule": {"sparsities": [0.9, 0.95], "schedules": ["LLR", "ALLR"], "epochs": [1, 2]},
    "soup_size": {"sparsities": [0.9], "m": 5, "longer": [1, 2, 5]},
    "sparsity": {"sparsities": [0.8, 0.9]},
    "subgroups": {"sparsities": [0.9]},
    "swa": {"schedules": ["LLR", "ALLR"]},
    "variation": {"m": [3]},
}


def experiment(recipe: str = "digits", **changes: Any) -> Experiment:
    """Return a recipe's experiment of two phases and one seed with ``changes``."""
    own = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    own |= {"recipe": recipe, "seeds": [0], "m": 3, "phases": 2, "methods": ["imp", "sms"]}
    return Experiment.model_validate(own | {"merge": ["uniform", "greedy"]} | changes)


def plan(*named: str, **changes: Any) -> Plan:
    return build(experiment(studies=list(named), study=changes.pop("study", SMALL), **changes))


@pytest.mark.parametrize("study", ALL)
def test_a_training_has_its_name_whatever_else_is_planned(study):
    methods = ["imp", "sms", "imp_mx", "imp_reprune"]
    alone, among_all = plan(study, methods=["imp"]), plan(*ALL, methods=methods)
    trainings = {name for name, stage in alone.nodes.items() if stage.script == "retrain"}
    assert trainings - set(among_all.nodes) <= {"s0-oneshot90-epochs-p1-c1"}  # 9 epochs, as another
    assert trainings


def added(*named: str, **changes: Any) -> Counter[str]:
    """Count the stages of each kind that studies add to the methods' own."""
    return Counter(node.script for node in plan(*named, **changes).nodes.values() if node.study)


def test_studies_are_listed_with_a_line_each():
    assert list(studies()) == ALL
    assert all(len(line) > 20 for line in studies().values())


@pytest.mark.parametrize(
    ("study", "counts"),
    [
        # two sparsities: pruned once, three candidates, whose barriers both soups share, and two
        # soups, each beside its candidates
        ("sparsity", {"prune": 2, "retrain": 6, "merge": 4, "compare": 4, "interpolate": 2}),
        # five candidates; the copy of 1 time is the first, and two are longer
        ("soup_size", {"prune": 1, "retrain": 5 + 2, "merge": 4}),
        # candidate 0 for all, and two more of each of five kinds; a longer copy
        ("variation", {"prune": 1, "retrain": 1 + 2 * 5 + 1, "merge": 5, "compare": 5}),
        # two sparsities: RigL and DPF, each alone and longer; RigL + SMS up to the fixed mask and
        # three copies after it; DPF + SMS up to sms_start, three copies in each of four intervals
        (
            "dynamic_masks",
            {"sparsify": 2 * (2 * 2 + (1 + 3) + (1 + 3 * 4)), "prune_copies": 2 * (1 + 4)}
            | {"merge": 2 * 2},
        ),
        # 1 and 3 epochs; 3 times 1 epoch is candidate 0 of 3 epochs, 3 times 3 is new
        ("length", {"prune": 1, "retrain": 2 * 3 + 1, "merge": 2 * 2}),
        # per sparsity LLR and ALLR at 10 epochs, ALLR at 1 and 2
        ("schedule", {"prune": 2, "retrain": 2 * 4 * 3, "merge": 2 * 4}),
        # three of each kind; candidate 0 is shared, but for the linear schedule's
        ("pairs", {"prune": 1, "retrain": 3 + 2 + 2 + 3, "merge": 4 * 3}),
        # IMP in 6 phases; IMP_mx in 2, whose first pruning is everybody's
        ("more_phases", {"prune": 6 + 1, "retrain": 6 + 2}),
        # greedy on the uniform soup's candidates; the uniform soup is there
        ("merging", {"merge": 1, "compare": 1}),
        # IMP is candidate 0; the dense network, IMP_mx, two soups and three candidates are set
        # beside the dense one
        ("subgroups", {"prune": 1, "retrain": 3 + 1, "merge": 2, "shift": 1 + 1 + 2 + 3}),
        # two sparsities by two allocations; the dense network is timed too
        ("latency", {"prune": 4, "retrain": 4 * 3, "merge": 4, "latency": 4 + 1}),
        # IMP by LLR, and IMP+SWA by both; phase 1's pruning is everybody's
        ("swa", {"prune": 3, "retrain": 3 * 2}),
        # per phase IMP's runs and SMS's candidates, which in phase 1 are the same
        ("interpolation", {"prune": 2, "retrain": 2, "interpolate": 3}),
        # phase 1: soup and candidates at once, each pruned and retrained; candidate 0 is IMP's
        (
            "landscape",
            {"prune": 2, "retrain": 2, "interpolate": 2, "plane": 2, "curvature": 8, "damage": 4},
        ),
        # per phase, bits and distillation: candidates, their mean, it quantised, and the soup;
        # distilled candidates and soups of both phases, and the second's pruning, are new
        ("quantise", {"quantise": 2 * 4 * 5, "merge": 2 * 4 + 2, "retrain": 2 * 3, "prune": 1}),
        # two more runs of the one dense network's, and two of dense networks of their own
        (
            "alignment",
            {"pretrain": 2, "prune": 2 + 4, "retrain": 2 + 4}
            | {"align": 2 * 4, "reprune": 2 * 4, "interpolate": 2 * 4},
        ),
    ],
)
def test_a_study_adds_what_no_method_has_and_nothing_else(study: str, counts: dict[str, int]):
    assert added(study) == counts
    before, after = plan(), plan(study)
    assert after.rows == before.rows
    assert [n for n, node in after.nodes.items() if not node.study] == list(before.nodes)
    for name, node in before.nodes.items():
        assert dvc_yaml.command(node) == dvc_yaml.command(after.nodes[name])


def test_varied_settings_that_are_the_experiments_own_add_nothing():
    """One shot to 90 % by ALLR in 10 epochs, with every method that the studies compare."""
    own = {"phases": 1, "target_sparsity": 0.9, "methods": ["imp_mx", "sms"]}
    only = {
        "length": {"sparsities": [0.9], "epochs": [10]},
        "schedule": {"sparsities": [0.9], "schedules": ["ALLR"], "epochs": [10]},
        "sparsity": {"sparsities": [0.9]},
    }
    measured = {"interpolate": 1}  # no method measures barriers
    assert added("length", "schedule", "sparsity", study=only, **own) == measured


def test_studies_share_what_they_both_vary():
    """The lengths at 90 % are candidates of the schedules' study too."""
    both, each = added("length", "schedule"), added("length") + added("schedule")
    assert each["prune"] - both["prune"] == 1
    assert each["retrain"] - both["retrain"] == 3  # 1 epoch at 90 %
    assert each["merge"] - both["merge"] == 1


def test_the_order_of_studies_moves_nothing():
    first, second = (plan(*named).nodes for named in (ALL, ALL[::-1]))
    assert {name: dvc_yaml.command(node) for name, node in first.items()} == {
        name: dvc_yaml.command(node) for name, node in second.items()
    }


def test_laws_of_every_study():
    of = plan(*ALL, seeds=[0, 1], evaluate={"corruptions": "all"})
    seen: set[str] = set()
    for node in of.nodes.values():
        assert set(node.inputs) <= seen, "inputs come first"
        seen.add(node.name)
        assert set(node.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
    work = {" ".join(dvc_yaml.command(node)[:-1]) for node in of.nodes.values()}
    assert len(work) == len(of.nodes), "no two stages do the same work"
    reached = {name for node in of.nodes.values() for name in node.inputs}
    measured = {name for point in of.points for name in (point.model, *point.nodes.values())}
    ends = {node.name for node in of.nodes.values() if node.study} - reached
    assert ends <= measured, "nothing is done for nobody"
    for point in of.points:
        assert {point.study} <= set(of.nodes[point.model].labels["studies"].split(","))
    assert {point.study for point in of.points} == set(ALL)


def test_a_longer_grid_keeps_every_stage_of_the_shorter_one():
    for study, longer in {
        "length": {"sparsities": [0.8, 0.9], "epochs": [1, 2, 3]},
        "schedule": {
            "sparsities": [0.9, 0.95],
            "schedules": ["LLR", "CLR", "ALLR"],
            "epochs": [2, 1],
        },
        "pairs": {"candidates": 5},
        "sparsity": {"sparsities": [0.995, 0.8, 0.9], "epochs": [1, 10]},
    }.items():
        before, after = plan(study).nodes, plan(study, study={study: longer}).nodes
        for name, node in before.items():
            assert dvc_yaml.command(node) == dvc_yaml.command(after[name])


def test_pairs_differ_in_one_thing():
    of = plan("pairs")
    for point in of.points:
        first, second = (of.nodes[name].arguments for name in point.candidates)
        differ = {key for key in first | second if first.get(key) != second.get(key)}
        assert differ == {point.values["vary"]}
        assert set(of.nodes[point.model].inputs) == {"data", *point.candidates}
    found = Counter(point.values["vary"] for point in of.points)
    assert found == dict.fromkeys(["seed", "weight_decay", "epochs", "learning_rate"], 3)


def test_pairs_ignore_what_the_experiment_itself_varies():
    """Values in params.yaml take the grid's place for that kind, and for no other."""
    own = experiment().retrain.model_dump() | {"vary": "epochs", "values": [4, 6]}
    of = plan("pairs", retrain=own)
    epochs = {point.values["second"] for point in of.points if point.values["vary"] == "epochs"}
    assert epochs == {4, 6}
    assert Counter(point.values["vary"] for point in of.points)["seed"] == 3


def test_pairs_leave_out_what_the_recipe_has_no_grid_for():
    own = experiment().retrain.model_dump() | {"grids": {"epochs": [10, 9]}}
    of = plan("pairs", retrain=own)
    assert Counter(point.values["vary"] for point in of.points) == {"seed": 3, "epochs": 1}


def test_grids_of_cifar_100_are_the_papers():
    """Appendix B.2.1, with the experiment's own setting first."""
    grids = experiment("cifar100_wrn20").retrain.grids
    assert sorted(grids["weight_decay"]) == pytest.approx([k * 1e-4 for k in range(1, 9)])
    assert sorted(grids["epochs"]) == list(range(6, 14))
    assert sorted(grids["learning_rate"]) == [k / 100 for k in range(6, 14)]
    own = [grids["weight_decay"][0], grids["epochs"][0], grids["learning_rate"][0]]
    assert own == [2e-4, 10, 0.1]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("studies: [pears]", "studies is 'pears', but must be one of alignment, "),
        ("studies: [pairs, pairs]", "studies is ['pairs', 'pairs'], but must name each only once"),
        ("study: {pears: {}}", "study is 'pears', but must be one of alignment, "),
        (
            "studies: [pairs]\nstudy: {pairs: {sparsity: 1.5}}",
            "params.yaml: study.pairs.sparsity is 1.5, but must be in (0, 1)",
        ),
        (
            "studies: [pairs]\nstudy: {pairs: {seeds: 3}}",
            "params.yaml: the key study.pairs.seeds is unknown: use one of sparsity, candidates",
        ),
        (
            "studies: [length]\nstudy: {length: {epochs: [1, 0]}}",
            "params.yaml: study.length.epochs.1 is 0, but must be at least 1",
        ),
        (
            "studies: [schedule]\nstudy: {schedule: {schedules: [SGD]}}",
            "study.schedule.schedules.0 is 'SGD', but must be 'FT', 'LRW', 'SLR', 'CLR'",
        ),
        (
            "studies: [subgroups]\nstudy: {subgroups: {methods: [imp, smz]}}",
            "study.subgroups.methods is 'smz': use one of acdc, ",
        ),
        (
            "studies: [merging]\nstudy: {merging: {rules: [mean]}}",
            "params.yaml: study.merging.rules is 'mean', but must be one of distilled, greedy, ",
        ),
        (
            "studies: [quantise]\nstudy: {quantise: {bits: [1]}}",
            "params.yaml: study.quantise.bits.0 is 1, but must be in [2, 16]",
        ),
        (
            "studies: [merging]\nstudy: {merging: {phase: 4}}",
            "study.merging.phase is 4, but there are only 3 phases: name one of them",
        ),
        (
            "studies: [soup_size]\nstudy: {soup_size: {m: 101}}",
            "params.yaml: study.soup_size.m is 101, but must be in [2, 100]",
        ),
        (
            "studies: [variation]\nstudy: {variation: {vary: [sam]}}",
            "params.yaml: study.variation.vary.0 is 'sam', but must be 'seed', 'weight_decay', ",
        ),
    ],
)
def test_what_no_study_can_do_is_refused_in_a_sentence(tmp_path: Path, line: str, sentence: str):
    (tmp_path / "params.yaml").write_text(PARAMS.replace("recipe: tiny", "recipe: digits") + line)
    with pytest.raises(UserError) as refused:
        build(load(tmp_path / "params.yaml"))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def leave(artifacts: Path, node: str, **metrics: Any) -> None:
    (artifacts / node).mkdir(parents=True, exist_ok=True)
    (artifacts / node / "metrics.json").write_text(json.dumps(metrics))


def accuracies(artifacts: Path, node: str, test: float, val: float | None = None) -> None:
    leave(artifacts, node, test_accuracy=test, val_accuracy=test if val is None else val)


def of_study(of: Plan, artifacts: Path, name: str) -> Any:
    return read(of, name, studies()[name], artifacts)


def everywhere(of: Plan, artifacts: Path) -> None:
    """Leave something plausible for every stage, soups a little better than candidates."""
    for name, node in of.nodes.items():
        high = 0.9 + (len(name) % 7) / 200 + (0.01 if node.script == "merge" else 0)
        leave(artifacts, name, test_accuracy=high, val_accuracy=high, l2_mean=3.0, l2_max=4.0,
              ensemble={"test_accuracy": 0.95}, included=[0, 1], mean_19=high - 0.2,
              sparsity_of_mean=0.5, test_error_barrier_mean=0.1, test_error_barrier_max=0.2,
              test_loss_barrier_mean=0.3, test_loss_barrier_max=0.4,
              **(by_group(high) if node.script == "shift" else {}),
              **(times(len(name)) if node.script == "latency" else {}),
              **landscape_of(node.script, len(name)))  # fmt: skip


def landscape_of(script: str, length: int) -> dict[str, Any]:
    """Return what the stages of the study landscape leave; networks differ by their names."""
    if script == "curvature":
        keys = ("train_loss", "trace", "trace_error", "gradient_noise", "gradient_norm_squared")
        return dict.fromkeys(keys, 0.1) | {"eigenvalue": 2.0 * length, "norm_squared": 50.0}
    if script == "damage":
        ends = {
            when: {split: {"loss": high * length, "error": high} for split in ("train", "test")}
            for when, high in (("before", 0.01), ("after", 0.03))
        }
        return ends | dict.fromkeys(("step_squared", "slope", "curvature", "predicted"), 0.2)
    if script == "interpolate":
        return {"shares": [0, 0.5, 1], "pairs": [{"curves": {"test_error": [0.1, 0.2, 0.1]}}]}
    if script == "plane":
        surface = [[0.1, 0.2, 0.3], [0.01, 0.02, 0.3], [0.1, 0.2, 3.0]]
        places = {"x": [0, 1, 2], "y": [0, 1, 2], "corners": [[0, 0], [2, 0], [1, 2]]}
        return places | {"mean": [1, 0.67], "train_loss": surface}
    return {}


def times(length: int) -> dict[str, Any]:
    """Return what stages/latency.py leaves; networks differ by the ``length`` of their names."""
    machine = {"difference": 1e-6, "isa": "avx2", "cpu": "Pentium"}
    batches = {
        f"batch_{size}": {
            "dense_ms": 9.0 * size,
            "compiled_ms": size / length,
            "speedup": 9.0 * length,
        }
        for size in (1, 64)
    }
    return machine | {"latency": batches}


def by_group(high: float) -> dict[str, Any]:
    """Return what stages/shift.py leaves: a rare group below and a large one above ``high``."""
    ends = {"low": high - 0.1, "high": high + 0.05}
    groups = {"rare": {"recall": high - 0.05, "n": 24}, "many": {"recall": high, "n": 400}}
    groups = {name: one | ends for name, one in groups.items()}
    moved = {"lost": 3, "gained": 1, "change": 0.1, "low": -0.05, "high": 0.2}
    return {
        **dict.fromkeys(("test_macro_accuracy", "test_group_mean", "test_worst_group"), high),
        "test": {"groups": groups, "classes": groups},
        "test_shift": dict.fromkeys(groups, moved),
    }


def test_the_best_candidate_is_chosen_on_validation(tmp_path: Path):
    """Candidates 90, 92, 91 % on test; the second-best on test is the best on validation."""
    of = plan("sparsity", study={"sparsity": {"sparsities": [0.9]}}, merge=["uniform"])
    soup = next(point for point in of.points)
    values = [(0.90, 0.91), (0.92, 0.90), (0.91, 0.95)]
    for candidate, (test, val) in zip(soup.candidates, values, strict=True):
        accuracies(tmp_path, candidate, test, val)
    accuracies(tmp_path, soup.model, 0.93)
    leave(tmp_path, soup.nodes["compare"], l2_mean=3.5, l2_max=4.25)
    leave(tmp_path, soup.nodes["interpolate"], test_loss_barrier_mean=0.25)
    study = of_study(of, tmp_path, "sparsity")
    row = points_table(study, ["l2_mean", "l2_max"]).iloc[0]
    assert row["best_candidate"] == 0.91
    assert row["mean_candidate"] == pytest.approx(0.91)
    assert row["gain"] == pytest.approx(0.02)
    assert (row["l2_mean"], row["l2_max"]) == (3.5, 4.25)
    assert study.missing == []
    text = sparsity.text(study, sparsity.tabulate(study))
    assert (
        "| 90 % | SMS uniform | ALLR, 10 epochs | 93.00 | 91.00 | +2.00 | 3.50 | 4.25 | 0.250 | - |"
        in text
    )


def test_a_missing_candidate_is_named_and_no_best_of_the_rest_is_taken(tmp_path: Path):
    of = plan("sparsity", study={"sparsity": {"sparsities": [0.9]}}, merge=["uniform"])
    soup = of.points[0]
    for candidate in soup.candidates[1:]:
        accuracies(tmp_path, candidate, 0.9)
    accuracies(tmp_path, soup.model, 0.93)
    study = of_study(of, tmp_path, "sparsity")
    rows = sparsity.tabulate(study)
    assert rows["test_score"].tolist() == [0.93]
    assert rows[["best_candidate", "gain", "l2_mean"]].isna().all(axis=None)
    assert study.missing == sorted([soup.candidates[0], *soup.nodes.values()])


def test_the_best_configuration_is_chosen_on_validation_over_the_seeds(tmp_path: Path):
    """By mean validation accuracy 1 epoch (80, 90) loses to 2 (86, 86), which are worse on test."""
    grid = {"sparsity": {"sparsities": [0.9], "epochs": [1, 2]}}
    of = plan("sparsity", study=grid, seeds=[0, 1], merge=["uniform"])
    val = {(1, 0): 0.80, (1, 1): 0.90, (2, 0): 0.86, (2, 1): 0.86}
    for point in of.points:
        where = (point.values["epochs"], point.seed)
        accuracies(tmp_path, point.model, 1 - val[where], val[where])
    rows = points_table(of_study(of, tmp_path, "sparsity"))
    chosen = best(rows, by=["sparsity", "method"], over=["schedule", "epochs"])
    assert set(chosen["epochs"]) == {2}
    assert len(chosen) == 2
    only = rows[(rows["epochs"] == 1) | (rows["seed"] == 1)]  # 2 epochs lack a seed
    assert set(best(only, ["sparsity", "method"], ["schedule", "epochs"])["epochs"]) == {1}


@pytest.mark.parametrize(
    ("gains", "breaks_at"),
    [
        # of seeds 0 and 1 at 80, 98 and 99.9 %, in points; the deviation of two is |a - b| / sqrt 2
        ([(1, 1), (-1, -3), (-9, -9)], 0.98),  # -2 < -1.41
        ([(1, 1), (0, -3), (-9, -9)], 0.999),  # -1.5 > -2.12
        ([(1, 1), (-1, 1), (0, 0)], None),
        ([(-1, -1), (5, 5), (5, 5)], 0.8),  # no deviation
    ],
)
def test_a_soup_breaks_where_its_loss_exceeds_the_spread(
    tmp_path: Path, gains: list[tuple[int, int]], breaks_at: float | None
):
    grid = {"sparsity": {"sparsities": [0.999, 0.8, 0.98]}}
    of = plan("sparsity", study=grid, merge=["uniform"], seeds=[0, 1])
    by_place = dict(zip([0.8, 0.98, 0.999], gains, strict=True))
    for point in of.points:
        for candidate in point.candidates:
            accuracies(tmp_path, candidate, 0.5)
        gain = by_place[point.values["sparsity"]][point.seed]
        accuracies(tmp_path, point.model, 0.5 + gain / 100)
        leave(tmp_path, point.nodes["interpolate"], test_loss_barrier_mean=point.values["sparsity"])
    study = of_study(of, tmp_path, "sparsity")
    rows = sparsity.tabulate(study)
    assert sparsity.breaking_point(rows) == breaks_at
    name = "not up to 99.9 %" if breaks_at is None else f"{100 * breaks_at:g} %"
    line = f"| SMS uniform | {name} | "
    assert line in sparsity.text(study, rows)
    if breaks_at is not None:
        assert f"| {breaks_at:.3f} ± 0.000 | - |" in sparsity.text(study, rows).partition(line)[2]
    assert sparsity.breaking_point(rows[rows["seed"] == 0]) is None, "one seed has no spread"


def test_every_prefix_of_the_same_candidates_is_a_soup_and_longer_copies_share_their_start():
    of = plan("soup_size", study={"soup_size": {"sparsities": [0.9], "m": 20}})
    soups = [point for point in of.points if point.method == "sms_uniform"]
    longer = [point for point in of.points if point.method == "imp_mx"]
    most = soups[-1].candidates
    assert [point.candidates for point in soups] == [most[:m] for m in range(1, 21)]
    assert len(set(most)) == 20
    assert soups[0].model == longer[0].model == most[0]
    assert {of.nodes[name].arguments["parent"] for name in most} == {
        "artifacts/s0-oneshot90-p1-prune"
    }
    epochs = [of.nodes[point.model].arguments["epochs"] for point in longer]
    assert epochs == [10 * point.values["m"] for point in longer] == [10, 20, 30, 50, 100, 200]


def test_soup_size_refuses_candidates_of_unequal_epochs():
    own = experiment().retrain.model_dump() | {"vary": "epochs"}
    with pytest.raises(UserError, match="epochs, but the study soup_size compares"):
        plan("soup_size", retrain=own)


def test_distances_and_barriers_need_two_candidates_and_barriers_may_be_left_out():
    grid = {"sparsity": {"sparsities": [0.9], "barriers": False}}
    assert added("sparsity", study=grid)["interpolate"] == 0
    assert not {"compare", "interpolate"} & set(added("sparsity", m=1))


def test_interpolations_of_other_densities_have_other_names():
    """Three studies interpolate the same candidates at 11, 7 and 5 points."""
    own = {"phases": 1, "target_sparsity": 0.9, "merge": ["uniform"]}
    grid = {"sparsity": {"sparsities": [0.9]}, "interpolation": {"points": 7}}
    names = set(plan("alignment", "interpolation", "sparsity", study=grid, **own).nodes)
    assert {
        "s0-imp_reprune-p1-interpolate",
        "s0-imp_reprune-p1-interpolate7",
        "s0-sms_uniform-p1-interpolate5",
    } <= names


def test_soups_of_several_sizes_share_stages_with_the_studies_of_one():
    grid = {"soup_size": {"sparsities": [0.9], "longer": [3]}, "sparsity": {"sparsities": [0.9]}}
    both = added("soup_size", "sparsity", study=grid | {"length": {}}, merge=["uniform"])
    each = [added(name, study=grid, merge=["uniform"]) for name in ("soup_size", "sparsity")]
    assert sum(each, Counter()) - both == {"prune": 1, "retrain": 3, "merge": 1}


@pytest.mark.parametrize(
    ("by_seed", "stop"),
    [
        # validation scores (%) of m = 1, 2, 3, of each seed
        ([(90, 92, 92)], 2),  # one seed: no higher score after m = 2
        ([(90, 90, 90)], 1),
        # 2 minus 1 is 1 and 3 points, 2 with a standard error of 1; 3 minus 2 is 2 and -1
        ([(90, 91, 93), (90, 93, 92)], 2),
        # 3 minus 1 is 3 and 5; 3 minus 2 is 2 with no error
        ([(90, 91, 93), (90, 93, 95)], 3),
        # 0 and 4: a standard error of 2 is not exceeded
        ([(90, 90, 90), (90, 94, 94)], 1),
    ],
)
def test_more_candidates_stop_helping_by_validation_alone(
    tmp_path: Path, by_seed: list[tuple[int, ...]], stop: int
):
    grid = {"soup_size": {"sparsities": [0.9], "m": 3, "longer": [3]}}
    of = plan("soup_size", study=grid, seeds=list(range(len(by_seed))))
    for point in of.points:
        if point.method == "sms_uniform":
            val = by_seed[point.seed][point.values["m"] - 1] / 100
            accuracies(tmp_path, point.model, 0.1 * point.values["m"], val)
    study = of_study(of, tmp_path, "soup_size")
    rows = soup_size.tabulate(study)
    soups = rows[rows["method"] == "sms_uniform"]
    assert soup_size.enough(soups) == stop
    turned = soups.assign(test_score=1 - soups["test_score"])
    assert soup_size.enough(turned) == stop
    text = soup_size.text(study, rows)
    assert f"| 90 % | soup of m candidates | {stop} | " in text


def test_soup_size_compares_equal_costs(tmp_path: Path):
    """At m = 3 the soup has 94 %, its best candidate by validation 91, the longer copy 93."""
    of = plan("soup_size", study={"soup_size": {"sparsities": [0.9], "m": 3, "longer": [3]}})
    for point in of.points:
        accuracies(tmp_path, point.model, 0.93 if point.method == "imp_mx" else 0.94)
    values = [(0.90, 0.91), (0.92, 0.90), (0.91, 0.95)]
    for candidate, (test, val) in zip(of.points[2].candidates, values, strict=True):
        accuracies(tmp_path, candidate, test, val)
    study = of_study(of, tmp_path, "soup_size")
    text = soup_size.text(study, soup_size.tabulate(study))
    assert "| 90 % | 1 | 90.00 | 90.00 | - | - |" in text
    assert "| 90 % | 3 | 94.00 | 91.00 | 93.00 | +1.00 |" in text


def test_candidates_of_a_kind_differ_in_what_varies_and_cost_the_same():
    of = plan("variation", study={"variation": {"m": [2, 3, 5]}})
    kinds = {"seed": {"seed"}, "weight_decay": {"weight_decay"}, "epochs": {"epochs"}}
    kinds |= {"learning_rate": {"learning_rate"}}
    kinds |= {"all": {"seed", "weight_decay", "epochs", "learning_rate"}}
    sizes = Counter()
    for point in of.points:
        m, candidates = point.values["m"], [of.nodes[name].arguments for name in point.candidates]
        epochs = [flags["epochs"] for flags in candidates]
        if point.values["vary"] == "none":
            assert of.nodes[point.model].arguments["epochs"] == 10 * m
            continue
        sizes[point.values["vary"]] += 1
        assert sum(epochs) == 10 * m
        assert {type(number) for number in epochs} == {int}, "a flag of the stage"
        assert {flags["schedule"] for flags in candidates} == {"LLR"}
        names = set().union(*candidates) - {"dense", "data"}
        for first, second in pairwise(candidates):
            differ = {key for key in names if first.get(key) != second.get(key)}
            assert differ == kinds[point.values["vary"]]
        assert of.points[0].candidates[0] == point.candidates[0], "one candidate 0 for all"
    # the epochs of two are 10 and 9
    assert sizes == {"seed": 3, "weight_decay": 3, "epochs": 2, "learning_rate": 3, "all": 2}


def test_variation_compares_with_seeds_and_names_what_is_left_out(tmp_path: Path):
    of = plan("variation", study={"variation": {"m": [2], "vary": ["seed", "weight_decay"]}})
    test = {"seed": 0.91, "weight_decay": 0.92, "none": 0.95}
    for point in of.points:
        for candidate in point.candidates:
            accuracies(tmp_path, candidate, 0.9)
        if "compare" in point.nodes:
            leave(tmp_path, point.nodes["compare"], l2_mean=1.5)
    for point in of.points:
        accuracies(tmp_path, point.model, test[point.values["vary"]])
    study = of_study(of, tmp_path, "variation")
    text = variation.text(study, variation.tabulate(study))
    assert "| 2 | random seed | 91.00 | 90.00 | 90.00 | 1.50 | - | -4.00 |" in text
    assert "| 2 | weight decay | 92.00 | 90.00 | 90.00 | 1.50 | +1.00 | -3.00 |" in text
    assert "| 2 | one copy, m times as long | 95.00 | - | - | - | +4.00 | - |" in text
    absent = "epochs at m = 2, initial learning rate at m = 2, all four at m = 2.\n"
    assert text.endswith(f"of unequal cost: {absent}")


def test_dynamic_masks_are_trained_for_the_epochs_of_the_soup():
    """RigL's mask is fixed after 23 of 30 epochs: 23 + 3 x 7 = 44. DPF's soup begins at 18."""
    of = plan("dynamic_masks", methods=["rigl", "rigl_sms", "dpf", "dpf_sms"])
    epochs = {
        (point.values["mask"], point.values["role"]): point.values["epochs"] for point in of.points
    }
    assert epochs == {
        ("dense", "dense"): 30,
        ("rigl", "single"): 30,
        ("rigl", "soup"): 44,
        ("rigl", "longer"): 44,
        ("dpf", "single"): 30,
        ("dpf", "soup"): 54,
        ("dpf", "longer"): 54,
    }
    for point in of.points:
        if point.values["role"] == "longer":
            flags = of.nodes[point.model].arguments
            assert (flags["epochs"], flags["sparsity"]) == (
                point.values["epochs"],
                point.values["sparsity"],
            )
    shared = plan(
        "dynamic_masks",
        methods=["rigl", "rigl_sms", "dpf", "dpf_sms"],
        study={"dynamic_masks": {}},
    )
    own = {node.name for node in shared.nodes.values() if node.study}
    assert own == {"s0-train44-rigl-p2", "s0-train54-dpf-p2"}, "the methods have the others"


def test_dynamic_masks_compare_soup_single_and_longer(tmp_path: Path):
    of = plan("dynamic_masks", study={"dynamic_masks": {"methods": ["rigl"]}})
    test = {"dense": 0.97, "single": 0.94, "soup": 0.95, "longer": 0.96}
    for point in of.points:
        for candidate in point.candidates:
            accuracies(tmp_path, candidate, 0.93)
        accuracies(tmp_path, point.model, test[point.values["role"]])
    study = of_study(of, tmp_path, "dynamic_masks")
    text = dynamic_masks.text(study, dynamic_masks.tabulate(study))
    for line in (
        "| - | dense | dense | 30 | 97.00 | - | - |",
        "| 95 % | RigL | one network | 30 | 94.00 | - | +1.00 |",
        "| 95 % | RigL | one network, the soup's epochs | 44 | 96.00 | - | -1.00 |",
        "| 95 % | RigL | soup | 44 | 95.00 | 93.00 | - |",
    ):
        assert line in text


def test_panels_of_dynamic_masks_show_every_network(tmp_path: Path):
    """RigL at 99 %, with error bars beyond 100, and DPF at chance share an axis."""
    of = plan("dynamic_masks", seeds=[0, 1])
    for point in of.points:
        high = 0.98 + 0.02 * point.seed
        accuracies(tmp_path, point.model, 0.1 if point.values["mask"] == "dpf" else high)
    study = of_study(of, tmp_path, "dynamic_masks")
    figure = dynamic_masks.draw(study, dynamic_masks.tabulate(study))
    assert len(figure.axes) == 2
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert low < 10
        assert 99 < high <= 100.5


def test_length_takes_the_difference_seed_by_seed(tmp_path: Path):
    """SMS 94 and 96, IMP_mx 93 and 93 %: 1 and 3 points, hence 2 ± 1.41."""
    grid = {"length": {"sparsities": [0.9], "epochs": [3]}}
    of = plan("length", study=grid, seeds=[0, 1])
    test = {("sms_uniform", 0): 0.94, ("sms_uniform", 1): 0.96, ("sms_greedy", 0): 0.97}
    for point in of.points:
        found = test.get((point.method, point.seed), 0.93)
        accuracies(tmp_path, point.model, found, 0.5 if point.method == "sms_greedy" else found)
    study = of_study(of, tmp_path, "length")
    rows = length.tabulate(study)
    assert length.differences(rows)["points"].tolist() == pytest.approx([0.01, 0.03])
    line = "| 90 % | SMS uniform, ALLR | 3 | 95.00 ± 1.41 | 93.00 ± 0.00 | +2.00 ± 1.41 |"
    assert line in length.text(study, rows)


def test_pairs_count_better_and_worse(tmp_path: Path):
    """Candidates of 90, 91, 92 %: pair 01 gains 1 point on 91, 02 is level with 92, 12 loses 1."""
    grid = {"pairs": {"candidates": 3, "vary": ["seed"]}}
    of = plan("pairs", study=grid, evaluate={"corruptions": "all"})
    three = dict.fromkeys(name for point in of.points for name in point.candidates)
    for name, test in zip(three, (0.9, 0.91, 0.92), strict=True):
        accuracies(tmp_path, name, test)
    found = [0.92, 0.92, 0.91]
    for point, test in zip(of.points, found, strict=True):
        accuracies(tmp_path, point.model, test)
        leave(tmp_path, point.nodes["ood"], mean_19=0.75)
        leave(tmp_path, point.nodes["ood_first"], mean_19=0.70)
        leave(tmp_path, point.nodes["ood_second"], mean_19=0.70)
    study = of_study(of, tmp_path, "pairs")
    rows = pairs.tabulate(study)
    assert rows["better"].tolist() == [0.91, 0.92, 0.92]
    assert rows["gain"].tolist() == pytest.approx([0.01, 0.0, -0.01])
    line = "| random seed | 3 | 33 % | 33 % | 33 % | 0.00 | -1.00 | +1.00 | +5.00 |"
    text = pairs.text(study, rows)
    assert line in text
    assert "without a grid in the recipe: weight decay, epochs, initial learning rate." in text


def test_more_phases_compares_the_last_phase_of_each(tmp_path: Path):
    of = plan("more_phases")
    last = {"imp_mx": 2, "imp": 6}
    for point in of.points:
        accuracies(tmp_path, point.model, 0.95 if point.phase == last[point.method] else 0.5)
    accuracies(
        tmp_path, next(p.model for p in of.points if p.method == "imp" and p.phase == 6), 0.94
    )
    study = of_study(of, tmp_path, "more_phases")
    text = more_phases.text(study, more_phases.tabulate(study))
    assert "| 3 | 95.00 | 94.00 | -1.00 |" in text


def test_merging_leaves_out_a_rule_that_the_task_has_nothing_for():
    of = build(experiment("camvid_pspnet", merge=["uniform"], studies=["merging"]))
    merged = {point.method for point in of.points}
    assert {"sms_uniform", "sms_learned"} < merged
    assert "sms_distilled" not in merged


def test_merging_sets_every_rule_beside_the_ensemble(tmp_path: Path):
    of = plan("merging")
    for candidate, test in zip(of.points[0].candidates, (0.90, 0.91, 0.92), strict=True):
        accuracies(tmp_path, candidate, test)
    for point, taken in zip(of.points, ([0, 1, 2], [2]), strict=True):
        accuracies(tmp_path, point.model, 0.93 if len(taken) > 1 else 0.92)
        leave(tmp_path, point.nodes["compare"], included=taken, ensemble={"test_accuracy": 0.94})
    study = of_study(of, tmp_path, "merging")
    text = merging.text(study, merging.tabulate(study))
    assert "| SMS uniform | 93.00 | 93.00 | +1.00 | 3 of 3 |" in text
    assert "| SMS greedy | 92.00 | 92.00 | 0.00 | 1 of 3 |" in text
    for line in ("mean candidate | 91.00", "best candidate | 92.00", "(predictions) | 94.00"):
        assert line in text


def test_quantise_compares_the_order_of_averaging_and_rounding(tmp_path: Path):
    """int4 over two seeds: the soup 90 and 92 %, of quantised candidates 91 and 94: +1 and +2."""
    grid = {"quantise": {"bits": [4], "distill": [0]}}
    of = plan("quantise", study=grid, seeds=[0, 1], phases=1, target_sparsity=0.9)
    test = {"none": (0.95, 0.95), "soup": (0.90, 0.92), "both": (0.91, 0.94)}
    for point in of.points:
        score = test.get(point.values["quantised"], (0.93, 0.93))[point.seed]
        leave(tmp_path, point.model, test_accuracy=score, val_accuracy=score, rounded_to_zero=0.25)
        for candidate in point.candidates:
            accuracies(tmp_path, candidate, 0.94 if point.values["bits"] == 32 else 0.88)
    study = of_study(of, tmp_path, "quantise")
    text = quantise.text(study, quantise.tabulate(study))
    assert "| 90 % | 0 | float32 | 95.00 ± 0.00 | - | - | 94.00 ± 0.00 | 94.00 ± 0.00 | - |" in text
    mine = "91.00 ± 1.41 | 92.50 ± 2.12 | 93.00 ± 0.00 | 88.00 ± 0.00 | 88.00 ± 0.00 | 25.00"
    assert f"| 90 % | 0 | int4 | {mine} ± 0.00 |" in text
    # t(0.975, 1) = 12.706; the deviations of -5, -3 and of 1, 2 are 1.414 and 0.707
    minus = "-4.00 (-16.71 to +8.71), n = 2 | +1.50 (-4.85 to +7.85), n = 2 | - |"
    assert f"| 90 % | 0 | int4 | +3.00 (-9.71 to +15.71), n = 2 | {minus}" in text
    assert "| 90 % | 0 | float32 | +1.00, n = 2 | - | - | - |" in text


def test_quantise_distils_classifiers_only():
    shares = {point.values["distill"] for point in plan("quantise", study={}).points}
    assert shares == {0, 0.5}
    of = build(experiment("camvid_pspnet", merge=["uniform"], studies=["quantise"]))
    assert {point.values["distill"] for point in of.points} == {0}


def test_pairs_need_two_values():
    grid = {"pairs": {"vary": ["weight_decay"]}}
    with pytest.raises(UserError, match=r"study.pairs.vary is \['weight_decay'\], but .* add seed"):
        plan("pairs", study=grid, retrain={"epochs": 10, "schedule": "ALLR"})


def test_landscape_is_drawn_without_any_line(tmp_path: Path):
    of = plan("landscape")
    leave(tmp_path, of.points[0].nodes["curvature"], eigenvalue=2.0, norm_squared=2.0)
    study = of_study(of, tmp_path, "landscape")
    assert landscape.draw(study, landscape.tabulate(study)).legends == []


def test_landscape_needs_three_candidates():
    with pytest.raises(UserError, match="plane through three candidates, but m is 2: set m to 3"):
        plan("landscape", m=2)


def test_landscape_measures_every_parent_with_the_same_vectors_and_copies():
    of = plan("landscape", seeds=[0, 1], m=4)
    for seed, phase in ((0, 1), (0, 2), (1, 1), (1, 2)):
        points = [p for p in of.points if (p.seed, p.phase) == (seed, phase)]
        assert [p.values["network"] for p in points] == ["soup", "c0", "c1", "c2", "c3"]
        curvatures = [of.nodes[p.nodes["curvature"]] for p in points]
        assert [node.inputs[-1] for node in curvatures] == [p.model for p in points]
        assert len({node.arguments["seed"] for node in curvatures}) == 1
        assert ("plane" in points[0].nodes) is (seed == 0)
        if phase == 2:
            assert not any("damage" in p.nodes for p in points)
            continue
        for j, point in enumerate(points[1:]):
            pruned = of.nodes[point.nodes["damage"]].arguments["pruned"]
            copy, soups = (of.nodes[p.nodes[f"next{j}"]].arguments for p in (point, points[0]))
            assert of.nodes[pruned.removeprefix("artifacts/")].inputs == (point.model,)
            assert copy["parent"] == pruned
            assert {k for k in copy if copy[k] != soups[k]} == {"parent"}, "seeds are equal"
            assert soups["parent"] == of.nodes[points[0].nodes["damage"]].arguments["pruned"]


def test_landscape_subtracts_soup_and_candidates_seed_by_seed(tmp_path: Path):
    """Eigenvalues 2 and 3 of soups, 4, 5, 6 and 6, 7, 8 of candidates: -3 and -4."""
    of = plan("landscape", seeds=[0, 1])
    for point in of.points:
        parent, seed = point.values["network"], point.seed
        j = 0 if parent == "soup" else int(parent[1:])
        value = 2.0 + seed if parent == "soup" else 4.0 + 2 * seed + j
        leave(tmp_path, point.nodes["curvature"], eigenvalue=value, norm_squared=2.0)
        for role, node in point.nodes.items():
            if role == "damage":
                ends = {"before": 0.1, "after": 0.1 + value / 100}
                ends = {when: {key: {"loss": loss, "error": loss} for key in ("train", "test")}
                        for when, loss in ends.items()}  # fmt: skip
                leave(tmp_path, node, predicted=value / 50, **ends)
            if role.startswith("next"):
                accuracies(tmp_path, node, 0.9 - 0.01 * int(role[-1]))
    study = of_study(of, tmp_path, "landscape")
    rows = landscape.tabulate(study)
    first = rows[(rows["seed"] == 0) & (rows["phase"] == 1)]
    assert first["damage"].tolist() == pytest.approx([0.02, 0.04, 0.05, 0.06])
    assert first["scaled_eigenvalue"].tolist() == [4.0, 8.0, 10.0, 12.0]
    assert first["next_score"].tolist() == pytest.approx([0.89, 0.9, 0.89, 0.88])
    assert rows[rows["phase"] == 2][["damage", "next_score"]].isna().all(axis=None)
    text = landscape.text(study, rows)
    assert "-3.50 (-9.85 to +2.85), n = 2" in text  # 12.706 · 0.707 / √2 = 6.35
    assert (
        "| largest eigenvalue | candidates | +1.00, n = 6 | +1.00, n = 6 | -1.00, n = 6 |" in text
    )


def test_paper_numbers_stand_where_the_experiment_is_the_papers(tmp_path: Path):
    """Table 18 is about five candidates on WRN-20; Tables 16 and 17 about ResNet-50, ImageNet."""
    wrn = experiment("cifar100_wrn20", m=5)
    assert l2_distances(wrn)[0.995] == 39.41
    assert l2_distances(wrn)[0.9] == 29.17
    assert l2_distances(experiment("cifar100_wrn20", m=3)) == {}
    assert l2_distances(experiment("digits", m=5)) == {}
    table_1 = {"phases": 3, "target_sparsity": 0.9, "retrain": {"epochs": 10, "schedule": "ALLR"}}
    table_1 |= {"paper": {"dataset": "ImageNet", "arch": "ResNet-50", "test_examples": 50_000}}
    imagenet = experiment(**table_1)
    rows = published(imagenet, "more_phases")
    found = reference(rows[(rows["m"] == 10) & (rows["method"] == "IMP with m phases")])
    assert found is not None
    assert (found.mean, found.std, found.table) == (74.70, 0.02, 16)
    for other in (
        wrn,
        experiment(**table_1 | {"phases": 2}),
        experiment(**table_1 | {"paper": None}),
    ):
        assert published(other, "more_phases").empty
    grid = {"sparsity": {"sparsities": [0.9]}}
    of = build(experiment("cifar100_wrn20", m=5, studies=["sparsity"], study=grid))
    everywhere(of, tmp_path)
    study = of_study(of, tmp_path, "sparsity")
    assert "| 3.00 | 4.00 | 29.17 |" in sparsity.text(study, sparsity.tabulate(study))


def test_spread_of_a_measure_leaves_gaps_out(tmp_path: Path):
    of = plan("merging", seeds=[0, 1, 2])
    for point in of.points:
        if point.seed != 2:
            accuracies(tmp_path, point.model, 0.90 + 0.02 * point.seed)
    rows = points_table(of_study(of, tmp_path, "merging"))
    found = over_seeds(rows[rows["method"] == "sms_uniform"], "test_score")
    assert found is not None
    assert (found.n, found.mean) == (2, pytest.approx(0.91))


def test_times_of_an_image_are_beside_the_dense_networks(tmp_path: Path):
    """A batch of 64 in 32 ms is 0.5 ms an image; PyTorch's dense pass of the dense network 2 ms."""
    grid = {"latency": {"sparsities": [0.9], "allocations": ["uniform", "latency"]}}
    of = plan("latency", study=grid)
    for point, ms in zip(of.points, (64, 32, 16), strict=True):
        accuracies(tmp_path, point.model, 0.9)
        batch = {"dense_ms": 128.0, "compiled_ms": ms, "speedup": 128 / ms}
        one = {"dense_ms": 4.0, "compiled_ms": ms / 64, "speedup": 4 / (ms / 64)}
        machine = {"isa": "avx2", "cpu": "Pentium"}
        leave(
            tmp_path, point.nodes["latency"], latency={"batch_1": one, "batch_64": batch}, **machine
        )
    study = of_study(of, tmp_path, "latency")
    rows = latency.tabulate(study)
    assert rows["compiled_ms_64"].tolist() == [1.0, 0.5, 0.25]
    text = latency.text(study, rows)
    assert "| dense, PyTorch | - | 90.00 | - | 2.000 | - | 4.000 | - |" in text
    assert "| dense, compiled | - | 90.00 | - | 1.000 | 2.00 | 1.000 | 4.00 |" in text
    assert "| latency | 90 % | 90.00 | - | 0.250 | 8.00 | 0.250 | 16.00 |" in text
    assert "Processor: Pentium. Instruction set: avx2.\n" in text


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
@pytest.mark.parametrize("full", [True, False])
def test_every_study_has_page_table_and_picture(tmp_path: Path, seeds: list[int], full: bool):
    of = plan(*ALL, seeds=seeds)
    if full:
        everywhere(of, tmp_path / "artifacts")
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "gone.md").write_text("of another plan")
    write_studies(of, tmp_path / "artifacts", tmp_path / "studies")
    assert sorted(file.name for file in (tmp_path / "studies").glob("*.md")) == [
        f"{name}.md" for name in ALL
    ]
    for name in ALL:
        text = (tmp_path / "studies" / f"{name}.md").read_text()
        assert ("## Missing" in text) is not full
        numbers = text.split("![")[1].replace("± is the standard deviation", "")
        assert ("±" in numbers) is (full and len(seeds) > 1), name
        lines = (tmp_path / "studies" / f"{name}.csv").read_text().splitlines()
        if name != "subgroups":  # a row a measure, as tests/test_subgroups.py checks
            assert len(lines) == 1 + sum(point.study == name for point in of.points)
        picture = imread(tmp_path / "studies" / "figures" / f"{name}.png")
        assert picture.shape[1] == 1300
        assert 0.001 < (picture[..., :3].min(axis=2) < 0.9).mean() < 0.6


@pytest.mark.parametrize(
    "pages",
    [
        *(alignment, dynamic_masks, interpolation, landscape, latency, length, merging),
        *(more_phases, pairs, quantise, schedule, soup_size, sparsity, subgroups, swa, variation),
    ],
)
def test_all_text_lies_on_the_page_and_no_tick_label_on_another(tmp_path: Path, pages: Any):
    """With the studies' own grids, which are the longest that we draw."""
    name = pages.__name__.rpartition(".")[2]
    of = plan(name, study={}, merge=["uniform", "greedy", "learned", "wise"])
    everywhere(of, tmp_path)
    study = of_study(of, tmp_path, name)
    with style.look():
        figure = pages.draw(study, pages.tabulate(study))
        figure.canvas.draw()
        paper, hidden = figure.bbox.padded(2), unseen(figure)
        for text in figure.findobj(Text):
            box = text.get_window_extent()
            if text.get_text().strip() and text not in hidden:
                assert paper.contains(*box.min), text.get_text()
                assert paper.contains(*box.max), text.get_text()
        for axes in figure.axes:
            for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
                boxes = [tick.get_window_extent() for tick in ticks if tick not in hidden]
                assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def test_the_main_report_links_studies_and_holds_none_of_their_rows(tmp_path: Path):
    of = plan("sparsity", "merging")
    for name, node in of.nodes.items():
        if node.script == "retrain":
            (tmp_path / name).mkdir()
            (tmp_path / name / "history.json").write_text('[{"epoch": 1, "loss": 0.5}]')
    results = read_rows(of, tmp_path)
    assert not [name for name in results.tables["training"]["node"] if of.nodes[name].study]
    assert "- [sparsity](studies/sparsity.md): Soup minus best candidate" in page(results)
    assert len(results.rows) == len(read_rows(plan(), tmp_path).rows)
    assert "## Studies" not in page(read_rows(plan(), tmp_path))


@pytest.mark.slow
def test_studies_from_end_to_end(tmp_path: Path):
    """Real stages on the tiny project; a longer grid then trains only what it adds."""
    project = Project.create(tmp_path / "project")
    grids = {
        "dynamic_masks": {"methods": ["rigl"]},
        "landscape": {"points": 3, "plane": 2, "probes": 2, "images": 200},
        "latency": {"sparsities": [0.9], "allocations": ["global", "latency"]},
        "length": {"sparsities": [0.9], "epochs": [2]},
        "merging": {},
        "pairs": {"candidates": 2, "vary": ["seed", "weight_decay"]},
        "quantise": {"bits": [4], "distill": [0]},
        "soup_size": {"sparsities": [0.9], "m": 3, "longer": [1, 3]},
        "sparsity": {"sparsities": [0.9]},
        "variation": {"m": [3], "vary": ["all"]},
    }
    params = yaml.safe_load((project.root / "params.yaml").read_text())
    params |= {"phases": 1, "sparsify": {"epochs": 4}, "studies": list(grids), "study": grids}
    (project.root / "params.yaml").write_text(yaml.safe_dump(params))
    project.edit(
        "recipes/tiny.yaml",
        "retrain: {epochs: 1, schedule: ALLR}",
        "retrain: {epochs: 2, schedule: ALLR, grids: {weight_decay: [5.0e-4, 1.0e-3, 1.0e-4], "
        "epochs: [2, 1, 3], learning_rate: [0.1, 0.05, 0.2]}}",
    )
    output = project.run("dvc", "repro")
    assert "failed" not in output.splitlines()[-1]
    folder = project.root / "reports" / "studies"
    for name in grids:
        lines = (folder / f"{name}.csv").read_text().splitlines()
        assert len(lines) > 1
        assert "## Missing" not in (folder / f"{name}.md").read_text()
        assert imread(folder / "figures" / f"{name}.png").shape[1] == 1300
    row = read_csv(folder / "sparsity.csv").iloc[0]
    assert row["l2_mean"] > 0
    assert 0 <= row["test_loss_barrier_mean"] <= row["test_loss_barrier_max"]
    assert row["gain"] == pytest.approx(row["test_score"] - row["best_candidate"])
    sizes = read_csv(folder / "soup_size.csv")
    assert sizes["m"].tolist() == [1, 2, 3, 1, 3]
    assert sizes["test_score"][0] == sizes["test_score"][3], "both begin with candidate 0"
    assert sizes["test_score"][2] == row["test_score"]
    assert read_csv(folder / "variation.csv")["l2_mean"][0] > 0
    roles = read_csv(folder / "dynamic_masks.csv").set_index("role")["epochs"]
    assert roles.to_dict() == {"dense": 2, "single": 4, "soup": 3 + 3, "longer": 6}
    params["study"]["length"]["epochs"] = [2, 1]
    (project.root / "params.yaml").write_text(yaml.safe_dump(params))
    again = ran(project.run("dvc", "repro"))
    assert {name for name in again if "-c" in name} == {
        *(f"s0-oneshot90-epochs1-p1-c{j}" for j in range(3)),
        "s0-oneshot90-epochs3-p1-c0",  # 3 times one epoch
    }
