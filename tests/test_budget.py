"""Equal budgets: passes counted from the graph's commands, refusals, and the report's table."""

import re
import shlex
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from scipy import stats

from pipeline import registry
from pipeline.config.experiment import Experiment, load
from pipeline.errors import UserError
from pipeline.plan import budget, dvc_yaml, passes
from pipeline.plan.build import build
from pipeline.plan.passes import epochs
from pipeline.plan.plan import Plan, Result
from pipeline.report.load import read
from pipeline.report.page import page as page_of
from pipeline.report.paper import lookup
from pipeline.report.statistics import difference, holm
from pipeline.report.training_cost import trained_images
from tests.test_params import edited
from tests.test_report import made, params

ROOT = Path(__file__).parent.parent
METHODS = registry.names("plan/methods")
SHARED = 90  # epochs that all methods can spend on 27 of pretraining, m = 3 and 3 phases


def plan(**changes: Any) -> Plan:
    """Plan the digits with ``changes``, by key: ``pretrain__epochs`` is pretrain.epochs."""
    values = {key.replace("__", "."): value for key, value in changes.items()}
    return build(load(ROOT / "params.yaml").with_values(values))


def graph(of: Plan) -> dict[str, list[str]]:
    """Return the command of every stage of the graph as DVC reads it."""
    stages = yaml.safe_load(dvc_yaml.render(of))["stages"]
    return {name: shlex.split(stage["cmd"]) for name, stage in stages.items()}


def trained(commands: dict[str, list[str]], model: str) -> int:
    """Return the epochs of all trainings behind ``model``: the flags of the commands it needs."""
    needed, waiting = set(), [model]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            words = [word.removeprefix("artifacts/") for word in commands[name]]
            waiting += [word for word in words if word in commands]
    total = 0
    for name in needed:
        if "pretrain" in commands[name] and "--to-epoch" in commands[name]:
            continue  # epochs of the dense network's own training
        flags = dict(re.findall(r"--(epochs|from-epoch|to-epoch) (\d+)", " ".join(commands[name])))
        total += int(flags.get("to-epoch", flags.get("epochs", 0))) - int(
            flags.get("from-epoch", 0)
        )
    return total


def spent(of: Plan) -> dict[str, int]:
    """Return the epochs behind the last network of each method and seed."""
    commands = graph(of)
    last = [row for row in of.rows if row.phase == of.params.phases]
    return {f"{row.method} {row.seed}": trained(commands, row.model) for row in last}


def test_every_method_spends_the_budget_exactly():
    of = plan(budget=SHARED, methods=METHODS, pretrain__epochs=27, seeds=[0, 1])
    epochs = spent(of)
    assert set(epochs.values()) == {SHARED}
    assert len(epochs) == 2 * (len(METHODS) + 1), "sms has two merge rules"
    without = spent(plan(methods=METHODS, pretrain__epochs=27, seeds=[0]))
    assert len(set(without.values())) > 4


@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_each_method_alone_spends_it_too(method, m):
    """40 epochs: 20 of pretraining and 20 for 2 phases of 1 or 2 copies; 1.4 T = 70 with T = 50."""
    total = {("gmp_sms", 2): 70, ("dpf_sms", 2): 70}.get((method, m), 40)
    of = plan(budget=total, methods=[method], m=m, phases=2, pretrain__epochs=20, seeds=[3])
    assert set(spent(of).values()) == {total}


def test_the_images_of_a_budget_are_equal_too(tmp_path: Path):
    of = plan(budget=SHARED, methods=["imp", "rewind"], pretrain__epochs=27, seeds=[0])
    (tmp_path / "data").mkdir()
    save_file({"labels": np.zeros(70)}, tmp_path / "data" / "train.safetensors")
    whole = 70 // of.params.pretrain.batch_size * of.params.pretrain.batch_size
    assert trained_images(of, tmp_path) == {"imp": SHARED * whole, "rewind": SHARED * whole}


def lengths(method: str, **changes: Any) -> set[tuple[str, int]]:
    """Return the kinds of trainings behind a method's last network, with their epochs."""
    of = plan(**{"budget": SHARED, "pretrain__epochs": 27, "methods": [method]} | changes)
    return {
        (stage.script, epochs(stage))
        for row in of.rows
        if row.phase == of.params.phases
        for stage in budget.stages_of(of, row.model)
        if epochs(stage) and not (stage.script == "pretrain" and "to_epoch" in stage.arguments)
    }


@pytest.mark.parametrize(
    ("method", "retraining"),
    [("imp", 21), ("imp_swa", 21), ("imp_mx", 21), ("imp_phases", 7), ("sms", 7), ("sms_swa", 7),
     ("rewind", 21), ("swamp", 7), ("lottery_pools", 21),
     ("imp_reprune", 7), ("imp_cia", 7), ("imp_caa", 7), ("imp_align", 7)],
)  # fmt: skip
def test_phases_and_copies_share_what_pretraining_leaves(method, retraining):
    """63 = 3 phases x 21 = 3 phases x 3 copies x 7 = 9 phases x 7."""
    assert lengths(method) == {("pretrain", 27), ("retrain", retraining)}


def test_pruning_during_training_is_as_long_as_the_budget():
    for method in ("gmp", "dpf", "gsm", "lc", "dnw", "dst", "str"):
        assert lengths(method) == {("sparsify", 90)}
    from_dense = {"sparsify__from_dense": True}
    for method in ("gsm", "lc"):
        assert lengths(method, **from_dense) == {("pretrain", 27), ("sparsify", 63)}
    # 50 epochs: one copy up to the step at 30, then three copies of 20: 30 + 3 x 20 = 90.
    assert lengths("gmp_sms") == {("sparsify", 30), ("sparsify", 5)}
    # 0.67 of 90 is 60: the rest is 3 phases of 10, or of 3 copies of 3, and 3 more dense epochs.
    assert lengths("bimp") == {("pretrain", 60), ("retrain", 10)}
    assert lengths("bimp_sms") == {("pretrain", 63), ("retrain", 3)}


def test_a_step_of_sam_counts_twice():
    assert lengths("sms", retrain__sam="s2sam") == {("pretrain", 27), ("retrain", 7)}
    assert lengths("sms", retrain__sam="sam", budget=27 + 9 * 2 * 4) == {
        ("pretrain", 27),
        ("retrain", 4),
    }


def test_a_rewound_phase_is_no_longer_than_pretraining():
    with pytest.raises(UserError, match=r"swamp cannot spend .* set it to 40, the nearest"):
        plan(budget=41, methods=["swamp"], m=1, phases=1, pretrain__epochs=20)
    with pytest.raises(UserError, match=r"rewind cannot spend .* set it to 60, the nearest"):
        plan(budget=61, methods=["rewind"], phases=2, pretrain__epochs=20)


def test_equal_lengths_are_the_networks_of_imp():
    of = plan(budget=57, methods=["imp", "imp_mx", "sms"])
    models = {(row.method, row.phase): row.model for row in of.rows}
    for phase in (1, 2, 3):
        assert models["imp", phase] == models["imp_mx", phase] != models["sms_uniform", phase]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "imp_mx"])
def test_a_method_alone_has_the_stages_it_has_among_others(method, whole):
    alone = graph(plan(budget=SHARED, methods=[method], pretrain__epochs=27, seeds=[0]))
    assert {name: whole.get(name) for name in alone} == alone


@pytest.fixture(scope="module")
def whole() -> dict[str, list[str]]:
    return graph(plan(budget=SHARED, methods=METHODS, pretrain__epochs=27, seeds=[0]))


@settings(max_examples=8)
@given(
    total=st.integers(1, 80),
    m=st.integers(1, 4),
    phases=st.integers(1, 3),
    methods=st.sets(st.sampled_from(METHODS), min_size=1, max_size=3),
)
def test_a_budget_is_spent_or_the_nearest_are_named(total, m, phases, methods):
    """The named ones divide, and none between them does."""
    changes = {"m": m, "phases": phases, "methods": sorted(methods), "merge": ["uniform"]}

    def of(budget: int) -> Plan:
        return plan(budget=budget, pretrain__epochs=12, seeds=[0], **changes)

    refusal = refused(of, total)
    if refusal is None:
        assert set(spent(of(total)).values()) == {total}
        return
    named = [int(word) for word in re.findall(r"\d+", refusal.partition("set it to")[2])]
    below = max([each for each in named if each < total], default=0)
    above = min([each for each in named if each > total], default=total)
    assert len(named) == (below > 0) + (above > total)
    word = "these methods" if len(methods) > 1 else "this method"
    ways = ("change pretrain.epochs, m or phases", "set rewind.epoch")
    assert refusal.endswith((f"the nearest that {word} can",) if named else ways)
    for each in named:
        assert set(spent(of(each)).values()) == {each}
    for each in range(below + 1, above):
        assert refused(of, each)


def refused(of: Callable[[int], Plan], total: int) -> str | None:
    """Return the sentence in which a budget is refused."""
    try:
        of(total)
    except UserError as error:
        return str(error)
    return None


def test_a_step_of_two_passes_costs_two(monkeypatch):
    """27 + 3 phases x 2 passes x e = 81 has e = 9; without the second pass 18."""
    assert lengths("imp", budget=81) == {("pretrain", 27), ("retrain", 18)}
    double = {"retrain": 2}
    monkeypatch.setattr(passes, "passes_per_step", lambda stage: double.get(stage.script, 1))
    assert lengths("imp", budget=81) == {("pretrain", 27), ("retrain", 9)}


def test_studies_keep_their_own_lengths():
    changes = {"methods": ["imp_phases", "sms"], "studies": ["more_phases"]}
    of, without = plan(budget=57, **changes), plan(**changes)
    models = [point.model for point in without.points]
    assert [point.model for point in of.points] == models
    commands, before = graph(of), graph(without)
    assert [commands[name] for name in models] == [before[name] for name in models]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 60, "methods": ["sms"]}, "is 60, which sms cannot .* set it to 57 or 66, the"),
        ({"budget": 20, "methods": ["imp", "sms"]}, "which imp and sms .* set it to 39, the near"),
        ({"budget": 57, "methods": ["sms", "gmp_sms"]}, "no other budget suits all methods"),
        ({"budget": 57, "methods": ["sms"], "retrain__vary": "epochs"}, "vary is epochs, but"),
        ({"budget": 57, "methods": ["gmp"], "prune__structure": "filters"}, "but gmp prunes"),
    ],
)
def test_what_cannot_be_equal_is_refused(changes, message):
    with pytest.raises(UserError, match=message) as error:
        plan(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["retrain", "sparsify"])
def test_a_budget_and_a_length_are_not_both_set(tmp_path, key):
    assert load(edited(tmp_path, budget=57)).budget == 57
    assert load(edited(tmp_path, **{f"{key}__epochs": 5})).budget is None
    with pytest.raises(UserError, match=rf"{key}\.epochs is 5, but budget is 57 .* null"):
        load(edited(tmp_path, budget=57, **{f"{key}__epochs": 5}))
    with pytest.raises(UserError, match="budget is 0, but must be at least 1"):
        load(edited(tmp_path, budget=0))


def test_without_a_budget_nothing_is_planned_otherwise():
    of = Plan(load(ROOT / "params.yaml"))
    assert of.params.budget is None
    assert budget.lengths(of, {"imp": lambda _: pytest.fail("no trial is needed")}) == {}
    committed = (ROOT / "stages" / "dvc.yaml").read_text()
    assert dvc_yaml.render(build(of.params)) == committed


# ---- the report

SCORES = {  # by seed
    "dense": [0.99, 0.99, 0.99],
    "sms_uniform": [0.95, 0.96, 0.97],
    "imp": [0.94, 0.94, 0.95],
    "imp_mx": [0.94, 0.94, 0.95],
    "gmp": [0.90, 0.92, 0.94],
    "dnw": [0.90, 0.91, 0.92],
}


def ranking(folder: Path, seeds: list[int]) -> tuple[str, dict[str, list[str]]]:
    """Return the first section of the page on `SCORES`, and the cells of its table by method."""

    def change(row: Result, stage: str, metrics: dict[str, Any]) -> None:
        if stage == "evaluate":
            metrics |= {"test_accuracy": SCORES[row.method][row.seed], "speedup": 10.0}

    methods = ["sms", "imp", "imp_mx", "gmp", "dnw"]
    own = params(budget=57, methods=methods, merge=["uniform"], seeds=seeds)
    of = made(folder, own, change)
    save_file({"labels": np.zeros(100, np.int64)}, folder / "data" / "train.safetensors")
    text = page_of(read(of, folder)).split("\n## ")
    assert text[1].startswith("Methods at an equal budget\n")
    assert "within a budget of 57 epochs for each method" in text[0]
    lines = [line.strip("| ").split(" | ") for line in text[1].splitlines() if line[:1] == "|"]
    return text[1], {cells[0]: cells[1:] for cells in lines[2:]}


def test_methods_are_ranked_with_tests_by_hand(tmp_path: Path):
    """With two degrees of freedom p = 1 - t / sqrt(t^2 + 2). The differences have these t and p.

    to IMP       SMS 5, p 0.037750    GMP sqrt 7, 0.118083     DNW 10, 0.009852
    to the best  IMP 5, p 0.037750    GMP sqrt 48, 0.020204    DNW: no spread, counts as 1
    GMP to DNW   sqrt 3, 0.225403

    Holm to IMP: 3 x 0.009852, 2 x 0.037750, 0.118083.
    Of all 6 pairs: 5 x 0.020204, 4 x 0.037750.
    """
    text, cells = ranking(tmp_path, [0, 1, 2])
    twin = "IMP 3\N{MULTIPLICATION SIGN} longer (the networks of IMP)"
    assert list(cells) == ["SMS uniform", "IMP", twin, "GMP", "DNW"]
    assert cells["SMS uniform"][:4] == [
        *("96.00 ± 1.00", "93.52 to 98.48", "+1.67 (p = 0.075)", "-"),
    ]
    assert cells["IMP"][2:4] == cells[twin][2:4] == ["-", "-1.67 (p = 0.151)"]
    assert cells["GMP"][2:4] == ["-2.33 (p = 0.118)", "-4.00 (p = 0.101)"]
    assert cells["DNW"][2:4] == ["**-3.33 (p = 0.030)**", "-5.00 (equal in all seeds)"]
    # Batches of 32 of 100 examples are 96 an epoch; 900,000 MACs by a speed-up of 10.
    assert {tuple(row[4:]) for row in cells.values()} == {("5,472", "0.090")}
    assert "3 for IMP and 6 for the best" in text


def test_one_seed_says_so(tmp_path: Path):
    text, cells = ranking(tmp_path, [0])
    assert cells["GMP"][:4] == ["90.00", "n = 1", "-4.00 (n = 1)", "-5.00 (n = 1)"]
    assert "One seed (n = 1) gives no interval and no test" in text
    assert "p =" not in text


def test_missing_results_are_last_and_without_numbers(tmp_path: Path):
    own = params(budget=57, methods=["sms", "imp"], merge=["uniform"], seeds=[0, 1])
    of = made(tmp_path, own)
    gone = {row.evaluate for row in of.rows if row.method == "sms_uniform"} | {"data"}
    table = page_of(read(of, tmp_path, gone)).split("\n## ")[1]
    assert table.splitlines()[-1] == "| SMS uniform | - | - | - | - | - | - |"


def test_without_a_budget_the_page_has_no_ranking(tmp_path: Path):
    own = params(methods=["imp"])
    page = page_of(read(made(tmp_path, own), tmp_path))
    assert "budget" not in page
    assert page.split("\n## ")[1].startswith("Test accuracy")


def test_results_of_a_budget_are_not_compared_with_the_paper():
    own = params("cifar100_wrn20", budget=290)
    assert lookup.departures(own) == ["budget is 290, not null"]
    assert lookup.lookup(own, "imp", 3) is None


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_the_closed_test_by_bonferroni(p_values: list[float]):
    """p~_i is the largest, over all sets S with i, of min(1, |S| min of S); Marcus et al. 1976."""
    places = range(len(p_values))
    sets = [s for size in places for s in combinations(places, size + 1)]
    expected = [
        max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in sets if i in s) for i in places
    ]
    assert holm(p_values) == pytest.approx(expected)


def test_holm_by_hand():
    """0.01, 0.04, 0.03, 0.005 times 3, 1, 2, 4, made monotone in the order of size."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=9))
def test_p_values_are_those_of_scipy(pairs: list[tuple[float, float]]):
    ours, theirs = dict(enumerate(a for a, _ in pairs)), dict(enumerate(b for _, b in pairs))
    found = difference(ours, theirs)
    assert found is not None
    if found.std is not None and found.std > 1e-6:
        expected = stats.ttest_rel(list(ours.values()), list(theirs.values())).pvalue
        assert found.p_value == pytest.approx(float(expected), abs=1e-9)
    assert (found.p_value is None) == (found.interval is None)


def test_the_experiment_of_a_run_has_no_new_key():
    """Without a budget the settings that MLflow and bundles record are those of before."""
    dumped = load(ROOT / "params.yaml").model_dump(exclude_none=True)
    assert "budget" not in dumped
    assert Experiment.model_validate(dumped).budget is None
