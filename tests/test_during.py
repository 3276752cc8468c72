"""Pruning during training as plans and as whole runs on the digits."""

import importlib
import json
import shlex
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.experiment import Experiment, load
from pipeline.errors import UserError
from pipeline.plan import dvc_yaml
from pipeline.plan.build import build, methods
from pipeline.plan.plan import Plan, Stage
from pipeline.prune.allocations import erk
from pipeline.report.load import read
from pipeline.report.page import page
from pipeline.rounding import exact, round_fraction
from pipeline.schedules.sparsity import ramp
from pipeline.storage.atomic_files import write_json
from pipeline.storage.checkpoint import load as load_checkpoint
from pipeline.storage.checkpoint import load_tensors, read_json
from tests.project import PARAMS, TINY, Project, ran, trained

ROOT = Path(__file__).parent.parent
SINGLE = ["gmp", "dpf", "acdc", "rigl", "gsm", "lc", "dnw", "dst", "str"]
SOUPS = ["gmp_sms", "dpf_sms", "rigl_sms"]
DURING = [*SINGLE, *SOUPS, "bimp", "bimp_sms"]


def plan(during: dict[str, object] | None = None, **changes: object) -> Plan:
    """Plan the digits, 30 epochs, three phases to 95 %, with ``changes``."""
    own = load(ROOT / "params.yaml").model_dump() | {"recipe": "digits", "methods": DURING}
    return build(Experiment.model_validate(own | changes | {"sparsify": during or {}}))


def trainings(of: Plan, method: str) -> list[Stage]:
    return [n for n in of.nodes.values() if n.script == "sparsify" and f"-{method}-p" in n.name]


# ---- plans


SOURCES = {
    "gmp": "(Zhu & Gupta, 2017)",
    "dpf": "(Lin et al., 2020)",
    "acdc": "(Peste et al., 2021)",
    "rigl": "(Evci et al., 2020)",
    "gsm": "(Ding et al., 2019)",
    "lc": "(Carreira-Perpinan et al., 2018)",
    "dnw": "(Wortsman et al., 2019)",
    "dst": "(Liu et al., 2020)",
    "str": "(Kusupati et al., 2020)",
    "gmp_sms": "(section 3.3)",
    "dpf_sms": "(section 3.3)",
    "rigl_sms": "(section 3.3; Evci et al., 2020)",
    "bimp": "(Zimmer et al., 2023)",
    "bimp_sms": "(section 3.3)",
}


def test_every_method_is_listed_with_its_source():
    assert SOURCES.keys() == set(DURING)
    listed = methods()
    assert {m: line[line.rindex("(") : -1] for m, line in listed.items() if m in SOURCES} == SOURCES


@pytest.mark.parametrize("method", SINGLE)
def test_a_single_training_reports_the_last_phase(method):
    of = plan()
    [node] = trainings(of, method)
    [row] = [row for row in of.rows if row.method == method]
    assert (row.model, row.phase, row.candidates) == (node.name, 3, ())
    assert (node.arguments["epochs"], node.inputs) == (30, ("data",))
    assert node.arguments["seed"] == of.nodes["s0-dense"].arguments["seed"], "from the same weights"
    assert f"pipeline/sparsify/{method}.py" in dvc_yaml.dependencies(node)
    others = {f"pipeline/sparsify/{name}.py" for name in SINGLE if name != method}
    assert not others & set(dvc_yaml.dependencies(node))


def test_only_methods_that_can_be_told_are_told_a_sparsity():
    told = {m for m in SINGLE if "sparsity" in trainings(plan(), m)[0].arguments}
    assert told == set(SINGLE) - {"dst", "str"}


def test_gsm_and_lc_may_start_from_the_dense_network():
    of = plan({"from_dense": True, "epochs": 10})
    for method in ("gsm", "lc"):
        [node] = trainings(of, method)
        assert node.arguments["parent"] == "artifacts/s0-dense"
        assert node.arguments["epochs"] == 10
    assert "parent" not in trainings(of, "dnw")[0].arguments


@pytest.mark.parametrize("method", ["gmp", "dpf"])
@settings(max_examples=15)
@given(
    m=st.integers(1, 4),
    epochs=st.integers(2, 100),
    since=st.floats(0, 0.99),
    data=st.data(),
)
def test_copies_take_up_every_interval_where_the_one_before_ends(method, m, epochs, since, data):
    steps = data.draw(st.integers(1, epochs - 1))
    own = {"epochs": epochs, "pruning_steps": steps, "sms_start": since}
    levels = ramp(0.95, epochs, steps)
    since = exact(since)
    if max(levels) < since * epochs:
        with pytest.raises(UserError, match=r"sparsify.sms_start .* lower it"):
            plan(own, m=m, methods=[f"{method}_sms"])
        return
    of = plan(own, m=m, methods=[f"{method}_sms"])
    first, *copies = trainings(of, f"{method}_sms")
    end, expected = first.arguments["to_epoch"], [e for e in levels if e >= since * epochs]
    assert end == expected[0]
    before = (first.name,)
    for phase, start in enumerate(expected, start=1):
        own_copies, copies = copies[:m], copies[m:]
        parts = {(n.arguments["from_epoch"], n.arguments["to_epoch"]) for n in own_copies}
        assert len({n.arguments["seed"] for n in own_copies}) == len(own_copies) == m
        assert len({n.arguments["parent"] for n in own_copies}) == 1
        parent = of.nodes[own_copies[0].arguments["parent"].removeprefix("artifacts/")]
        assert (parent.script, parent.arguments["sparsity"]) == ("prune_copies", levels[start])
        assert parent.inputs == before
        before = tuple(n.name for n in own_copies)
        resumed = [n for n in own_copies if "same_streams" in n.arguments]
        assert [n.name for n in resumed] == [f"s0-{method}_sms-p{phase}-c0"]
        assert resumed[0].arguments["seed"] == first.arguments["seed"]
        [(begin, after)] = parts
        assert (begin, end) == (start, start)
        end = after
    assert (end, copies) == (epochs, [])
    [row] = [row for row in of.rows if row.method != "dense"]
    assert (row.phase, row.sparsity, len(row.candidates)) == (3, 0.95, m)


@settings(max_examples=15)
@given(st.integers(1, 5), st.integers(6, 100), st.floats(0.05, 0.95))
def test_bimp_spends_exactly_the_budget(phases, epochs, dense_share):
    own = {"epochs": epochs, "dense_share": dense_share}
    if epochs - round_fraction(dense_share, epochs) < phases:
        with pytest.raises(UserError, match=r"sparsify.dense_share leaves no epoch"):
            plan(own, phases=phases, methods=["bimp"])
        return
    of = plan(own, phases=phases, methods=["bimp"])
    rows = [row for row in of.rows if row.method == "bimp"]
    assert [row.phase for row in rows] == list(range(1, phases + 1))
    last = [of.nodes[row.model].arguments for row in rows]
    [dense] = {of.nodes[a["dense"].removeprefix("artifacts/")].arguments["epochs"] for a in last}
    assert dense + sum(a["epochs"] for a in last) == epochs
    assert {a["schedule"] for a in last} == {"ALLR"}


def test_bimp_alone_and_with_sms_share_their_first_copy():
    of = plan(methods=["bimp", "bimp_sms"], m=3)
    rows = {(row.method, row.phase): row for row in of.rows}
    assert rows["bimp", 1].model == rows["bimp_sms", 1].candidates[0]
    assert len(rows["bimp_sms", 3].candidates) == 3


def test_laws_of_the_plan():
    whole = plan(methods=[*DURING, "sms", "imp"]).nodes
    seen: set[str] = set()
    for node in whole.values():
        assert set(node.inputs) <= seen
        seen.add(node.name)
        assert set(node.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
    work = {" ".join(dvc_yaml.command(node)[:-1]) for node in whole.values()}
    assert len(work) == len(whole), "no two stages do the same work"
    reached = {name for node in whole.values() for name in node.inputs}
    ends = {node.script for node in whole.values() if node.name not in reached}
    assert ends <= {"evaluate", "compare", "robustness"}, "nothing is trained for nobody"
    for method in DURING:
        for name, node in plan(methods=[method]).nodes.items():
            assert dvc_yaml.command(node) == dvc_yaml.command(whole[name])


@pytest.mark.parametrize("method", [*SINGLE, *SOUPS])
def test_whole_filters_are_not_pruned_during_training(method):
    with pytest.raises(UserError, match=f"structure is filters, but {method} prunes single"):
        plan(methods=[method], prune={"structure": "filters"})


def test_every_training_has_the_recipes_warm_up():
    own = load(ROOT / "params.yaml").pretrain.model_dump() | {"warmup": 0.1}
    assert {node.arguments["warmup"] for node in trainings(plan(pretrain=own), "gmp")} == {0.1}


def test_copies_start_at_the_very_step_that_is_named():
    """The step after epoch 55 of 100 is one of these, though 0.55 * 100 > 55 in floating point."""
    own = {"epochs": 100, "pruning_steps": 19, "sms_start": 0.55}
    first, *_ = trainings(plan(own, methods=["gmp_sms"]), "gmp_sms")
    assert first.arguments["to_epoch"] == 55


@pytest.mark.parametrize("method", SOUPS)
def test_copies_of_one_training_differ_by_seed_and_nothing_else(method):
    varied = {"epochs": 3, "schedule": "ALLR", "vary": "weight_decay", "values": [1e-4, 2e-4]}
    with pytest.raises(UserError, match=r"retrain.vary is weight_decay, .* set it to seed"):
        plan(methods=[method], retrain=varied)


def test_too_many_pruning_steps_are_refused():
    with pytest.raises(UserError, match=r"sparsify.pruning_steps is 30, but must .* the 30 epochs"):
        plan({"pruning_steps": 30}, methods=["gmp"])


@settings(max_examples=15)
@given(m=st.integers(1, 4), epochs=st.integers(1, 100), share=st.floats(0.01, 1))
def test_copies_of_rigl_begin_where_its_mask_is_fixed(m, epochs, share):
    own = {"epochs": epochs, "rigl_end": share, "sms_start": 0.0}
    fixed = max(1, round_fraction(share, epochs))
    if fixed == epochs:
        with pytest.raises(UserError, match=r"sparsify.rigl_end is .* no epoch of .* lower it"):
            plan(own, m=m, methods=["rigl_sms"])
        return
    of = plan(own, m=m, methods=["rigl_sms"])
    first, *copies = trainings(of, "rigl_sms")
    parts = [(node.arguments["from_epoch"], node.arguments["to_epoch"]) for node in copies]
    assert (first.arguments["to_epoch"], parts) == (fixed, [(fixed, epochs)] * m)
    assert len({node.arguments["seed"] for node in copies}) == m
    assert first.arguments["seed"] == copies[0].arguments["seed"]
    [row] = [row for row in of.rows if row.method == "rigl_sms"]
    assert (row.phase, row.sparsity, row.candidates) == (3, 0.95, tuple(n.name for n in copies))


def test_a_start_of_copies_after_the_last_change_of_the_mask_is_refused():
    words = r"sms_start is 0.8, but the last change of the mask is after epoch 23 of 30: lower it$"
    with pytest.raises(UserError, match=words):
        plan({"sms_start": 0.8}, methods=["rigl_sms"])


def test_phases_of_acdc_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"sparsify.acdc_phase is 12, .* 30 epochs leave 22"):
        plan({"acdc_phase": 12}, methods=["acdc"])


def test_options_are_those_of_the_method():
    of = plan({"acdc_phase": 2, "rigl_interval": 7})
    [acdc], [rigl] = trainings(of, "acdc"), trainings(of, "rigl")
    assert acdc.arguments["acdc_phase"] == 2
    assert rigl.arguments["rigl_interval"] == 7
    assert not {"rigl_interval", "pruning_steps"} & acdc.arguments.keys()
    assert not {"acdc_phase", "pruning_steps"} & rigl.arguments.keys()


# ---- one copy

ONE = {
    "m": 1,
    "phases": 2,
    "pretrain": {
        "epochs": 4,
        "batch_size": 512,
        "learning_rate": 0.1,
        "weight_decay": 5e-4,
        "schedule": "linear",
    },
    "evaluate": {"corruptions": "none"},
}


@pytest.mark.parametrize("method", ["gmp", "dpf", "rigl"])
def test_sms_of_one_copy_is_the_method_alone_bit_for_bit(method, tmp_path, monkeypatch):
    own = {"pruning_steps": 3, "sms_start": 0.0, "mask_interval": 1, "rigl_interval": 2}
    of = plan(own, methods=[method, f"{method}_sms"], **ONE)
    monkeypatch.chdir(tmp_path)
    alone, soup = (row for row in of.rows if row.method != "dense")
    copied = [name for name in of.nodes if name.startswith(f"s0-{method}_sms-p")]
    for name in ("data", alone.model, *copied):
        node = of.nodes[name]
        if node.script not in {"evaluate", "compare"}:
            script = importlib.import_module(f"stages.{node.script}")
            words = shlex.split(" ".join(dvc_yaml.command(node)))[2:]
            script.main(script.parser.parse_args(words))
    folders = [Path("artifacts", row.model) for row in (alone, soup)]
    one, other = (load_checkpoint(folder / "model.safetensors") for folder in folders)
    assert one.state.keys() == other.state.keys()
    assert all(torch.equal(one.state[name], other.state[name]) for name in one.state)
    assert all(torch.equal(one.masks[name], other.masks[name]) for name in one.masks)
    rows = [
        row
        for name in copied
        if (file := Path("artifacts", name, "history.json")).exists()
        for row in json.loads(file.read_text())
    ]
    whole = read_json(folders[0] / "history.json")
    for row in (*rows, *whole):
        del row["val_accuracy"]  # at a pruning step the one is validated before it, one after it
    assert rows == whole


# ---- the report


def test_the_report_shows_the_sparsity_that_came_out(tmp_path):
    of = plan(methods=["gmp", "gmp_sms", "dst", "str"])
    for row in of.rows:
        found = {"gmp": 0.95001, "dst": 0.314, "str": 0.9501}.get(row.method, row.sparsity)
        (tmp_path / row.evaluate).mkdir()
        layers = {"conv": {"sparsity": found, "weights": 70_000}}
        numbers = {"test_accuracy": 0.9, "test_examples": 360, "sparsity": found, "layers": layers}
        write_json(tmp_path / row.evaluate / "metrics.json", numbers)
        if row.compare:
            (tmp_path / row.compare).mkdir()
            best = {"candidate": 0, "val_accuracy": 0.9, "test_accuracy": 0.89}
            write_json(tmp_path / row.compare / "metrics.json", {"best_candidate": best})
    results = read(of, tmp_path)
    assert {method: cells[0]["sparsity"] for (method, _), cells in results.cells.items()} == {
        "dense": 0.0,
        "gmp": 0.95,
        "gmp_sms": 0.95,
        "dst": 0.314,
        "str": 0.9501,  # more than the rounding of one layer of 70,000 weights
    }
    text = page(results)
    assert "| DST (at 31.4 %) |" in text
    assert "| GMP |" in text
    assert "GMP + SMS is\n\n- 1.00 points above its best candidate\n- equal to GMP\n" in text


# ---- whole runs


def stored(folder: Path, part: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a paused training: its weights or its momentum."""
    tensors = load_tensors(folder / "training.safetensors").items()
    return {key.removeprefix(f"{part}/"): each for key, each in tensors if key.startswith(part)}


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> tuple[Project, str]:
    """Return a project after every method of this file ran in it, on a tiny recipe."""
    project = Project.create(tmp_path_factory.mktemp("during") / "project")
    own = "sparsify: {pruning_steps: 3, sms_start: 0.4, dense_share: 0.5, dst_alpha: 0.01, "
    own += "rigl_interval: 5}\n"
    recipe = TINY.replace("epochs: 2", "epochs: 4") + own
    assert recipe != TINY + own
    (project.root / "recipes" / "tiny.yaml").write_text(recipe)
    wanted = PARAMS.replace("m: 3", "m: 2").replace("[sms, imp]", f"[{', '.join(DURING)}]")
    (project.root / "params.yaml").write_text(wanted)
    return project, project.run("dvc", "repro")


@pytest.mark.slow
def test_every_method_runs_and_is_reported(digits):
    project, output = digits
    assert trained(output) >= {"s0-dpf_sms-p2-c1", "s0-gmp_sms-p1-c0", "s0-bimp2-p1-c1"}
    rows = (project.root / "reports" / "results.csv").read_text().splitlines()
    assert {row.split(",")[0] for row in rows[1:]} == {"dense", *DURING}
    assert ran(project.run("dvc", "repro")) == set()


@pytest.mark.slow
def test_sparsity_is_exact_and_zeros_are_where_the_masks_say(digits):
    project, _ = digits
    names = [f"{method}-p2" for method in (*SINGLE, "gmp_sms", "dpf_sms")]
    found = {}
    for name in [*names, "rigl_sms-p1", "bimp2-bimp_sms-p2"]:
        folder = project.root / "artifacts" / f"s0-{name}"
        model = load_checkpoint(folder / "model.safetensors")
        total = sum(mask.numel() for mask in model.masks.values())
        pruned = sum(int((model.state[each] == 0).sum()) for each in model.masks)
        assert pruned == sum(int((~mask).sum()) for mask in model.masks.values())
        assert read_json(folder / "metrics.json")["sparsity"] == pruned / total
        found[name] = (pruned, round_fraction(0.8, total))
    came_out = {name: found.pop(name) for name in ("dst-p2", "str-p2")}
    assert all(pruned == asked for pruned, asked in found.values())
    assert all(0 < pruned != asked for pruned, asked in came_out.values())


@pytest.mark.slow
def test_dpf_averages_the_dense_weights_behind_one_mask(digits):
    folder = digits[0].root / "artifacts"
    copies = [folder / f"s0-dpf_sms-p1-c{j}" for j in range(2)]
    models = [load_checkpoint(copy / "model.safetensors") for copy in copies]
    dense, momentum = ([stored(copy, part) for copy in copies] for part in ("weights", "momentum"))
    mean = stored(folder / "s0-dpf_sms-p2-prune", "weights")
    pruned = load_checkpoint(folder / "s0-dpf_sms-p2-prune" / "model.safetensors")
    returned = 0
    for name, mask in models[0].masks.items():
        for model, behind in zip(models, dense, strict=True):
            assert torch.equal(model.state[name], behind[name] * model.masks[name])
        torch.testing.assert_close(mean[name], (dense[0][name] + dense[1][name]) / 2)
        assert torch.equal(pruned.state[name], mean[name] * pruned.masks[name])
        returned += int((pruned.masks[name] & ~mask).sum())
    assert returned > 0, "a weight may come back"
    went_on = stored(folder / "s0-dpf_sms-p2-prune", "momentum")
    for name, average in went_on.items():
        torch.testing.assert_close(average, (momentum[0][name] + momentum[1][name]) / 2)
    last = [load_checkpoint(folder / f"s0-dpf_sms-p2-c{j}" / "model.safetensors") for j in (0, 1)]
    for name, mask in last[0].masks.items():
        assert torch.equal(mask, last[1].masks[name]), "what is averaged at last shares one mask"
    assert not (folder / "s0-dpf_sms-p2-c0" / "training.safetensors").exists(), "nothing goes on"


@pytest.mark.slow
def test_copies_of_rigl_share_its_last_mask_and_the_counts_of_erk(digits):
    folder = digits[0].root / "artifacts"
    names = ["rigl-p2", "rigl_sms-p0", "rigl_sms-p1-c0", "rigl_sms-p1-c1", "rigl_sms-p1"]
    models = [load_checkpoint(folder / f"s0-{name}" / "model.safetensors") for name in names]
    ones = {name: torch.ones_like(mask) for name, mask in models[0].masks.items()}
    scores = {name: mask.float() for name, mask in ones.items()}
    counts = {name: int(mask.sum()) for name, mask in erk.masks(scores, 0.8, ones).items()}
    assert counts["conv1.weight"] == 144, "all of them"
    for model in models:
        assert {name: int(mask.sum()) for name, mask in model.masks.items()} == counts
        assert all(torch.equal(mask, models[0].masks[name]) for name, mask in model.masks.items())
    one, other, soup = (model.state["fc.weight"] for model in models[2:])
    assert not torch.equal(one, other)
    torch.testing.assert_close(soup, (one + other) / 2)


@pytest.mark.slow
def test_learning_rates_go_on_where_they_stopped(digits):
    folder = digits[0].root / "artifacts"
    histories = [
        read_json(folder / f"s0-gmp_sms-{part}" / "history.json")
        for part in ("p0", "p1-c0", "p2-c1")
    ]
    whole = read_json(folder / "s0-gmp-p2" / "history.json")
    parts = [row["learning_rate"] for history in histories for row in history]
    assert parts == [row["learning_rate"] for row in whole]
