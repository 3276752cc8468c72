"""The allocation by measured costs: least cost for the magnitude kept; its stages and its time."""

import itertools
import json
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline import api
from pipeline.config.experiment import Experiment, load
from pipeline.errors import UserError
from pipeline.evaluate import compiled_latency as compiled_speed
from pipeline.inference import costs as cost_table
from pipeline.inference import library as kernels
from pipeline.inference.costs import Layer
from pipeline.models.build import build
from pipeline.plan import dvc_yaml
from pipeline.plan.build import build as build_plan
from pipeline.plan.plan import Plan
from pipeline.prune import rules
from pipeline.prune.allocations import _costs, latency
from pipeline.prune.network import prune_network
from pipeline.prune.prunable import prunable
from pipeline.storage.checkpoint import Checkpoint
from tests.command_line import stage
from tests.test_allocations import PERCENT, layers
from tests.test_inference_costs import rows_of
from tests.test_stages import TRAINING, refused

ROOT = Path(__file__).parent.parent
TABLE = "pipeline/inference/costs.csv"


def everywhere(scores: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}


def kept(masks: dict[str, Tensor]) -> dict[str, int]:
    return {name: int(mask.count_nonzero()) for name, mask in masks.items()}


# ---- the law


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, float], int]:
    """Return ten weights in two or three layers, costs in whole numbers, and how many to prune."""
    sizes = draw(st.sampled_from([(4, 3, 3), (5, 5), (1, 8, 1), (2, 2, 6)]))
    whole = st.integers(1, 9)
    scores = {
        str(i): torch.tensor(draw(st.lists(whole, min_size=n, max_size=n)), dtype=torch.float32)
        for i, n in enumerate(sizes)
    }
    costs = {name: float(draw(st.sampled_from([1, 2, 3, 10, 40]))) for name in scores}
    return scores, costs, draw(st.integers(1, 7))


@given(problems())
def test_no_mask_of_all_keeps_as_much_at_a_lower_cost(problem):
    """Brute force over all 1024 masks that keep each layer's share, in whole numbers."""
    scores, costs, pruned = problem
    lows = [ceil(latency.SHARE * (10 - pruned) * score.numel() / 10) for score in scores.values()]
    assume(sum(lows) <= 10 - pruned)  # else it is refused
    masks = latency.masks(scores, pruned / 10, everywhere(scores), costs)
    sizes = [score.numel() for score in scores.values()]
    every = np.array(list(itertools.product([0, 1], repeat=10)))
    layer = np.repeat(range(len(sizes)), sizes)
    allowed = np.all([every[:, layer == i].sum(1) >= low for i, low in enumerate(lows)], axis=0)
    squares = torch.cat(list(scores.values())).numpy().astype(int) ** 2
    prices = np.array([int(cost) for cost in costs.values()])[layer]
    ours = torch.cat(list(masks.values())).numpy().astype(int)
    assert ours.sum() == 10 - pruned
    assert all(count >= low for count, low in zip(kept(masks).values(), lows, strict=True))
    as_good = every[allowed & (every @ squares >= ours @ squares)]
    assert (as_good @ prices).min() == ours @ prices


@given(layers(), PERCENT, st.sampled_from([1e-9, 0.3, 1.0, 7e5]))
def test_equal_costs_are_the_global_allocation_where_no_share_binds(drawn, sparsity, cost):
    scores, alive = drawn
    try:
        expected = rules.allocation("global")(scores, sparsity, alive)
        masks = latency.masks(scores, sparsity, alive, dict.fromkeys(scores, cost))
    except UserError:
        assume(False)
    total, all_kept = sum(s.numel() for s in scores.values()), sum(kept(expected).values())
    lows = {
        name: min(int(alive[name].sum()), ceil(latency.SHARE * all_kept * score.numel() / total))
        for name, score in scores.items()
    }
    assume(all(kept(expected)[name] >= low for name, low in lows.items()))
    for name in scores:
        assert torch.equal(masks[name], expected[name])


@given(layers(), PERCENT, st.integers(0, 4), st.data())
def test_a_dearer_layer_never_keeps_more(drawn, sparsity, which, data):
    scores, alive = drawn
    costs = {name: data.draw(st.sampled_from([0.01, 0.2, 1.0, 3.0])) for name in scores}
    name = list(scores)[which % len(scores)]
    try:
        before = kept(latency.masks(scores, sparsity, alive, costs))
    except UserError:
        assume(False)
    dearer = costs | {name: costs[name] * data.draw(st.sampled_from([1.01, 2.0, 1e4]))}
    after = kept(latency.masks(scores, sparsity, alive, dearer))
    assert after[name] <= before[name]
    assert all(after[other] >= before[other] for other in scores if other != name)


@pytest.mark.parametrize(
    ("network", "size", "sparsity"),
    [("resnet18", 32, 0.98), ("resnet20", 32, 0.98), ("resnet20", 32, 0.9), ("resnet8", 8, 0.98)],
)
def test_every_layer_keeps_its_share_and_the_whole_costs_less(network, size, sparsity):
    """Without shares the stem of a random network keeps nothing, and its outputs are constant."""
    torch.manual_seed(0)
    model = build(network, 10, 3)
    costs = _costs.layer_costs(model, torch.zeros(1, 3, size, size))
    scores = {name: model.get_parameter(name).detach().abs() for name in prunable(model)}
    alive = everywhere(scores)
    counts = {
        name: kept(rules.allocation(name)(scores, sparsity, alive))
        for name in ("global", "uniform")
    }
    ours = kept(latency.masks(scores, sparsity, alive, costs))
    for name, count in ours.items():
        assert count >= counts["uniform"][name] // 2 > 0
    cost = {
        name: sum(costs[layer] * count for layer, count in each.items())
        for name, each in (counts | {"latency": ours}).items()
    }
    assert cost["latency"] < 0.8 * cost["uniform"] < 0.8 * cost["global"]


def test_without_shares_the_first_layer_would_die(monkeypatch):
    torch.manual_seed(0)
    model = build("resnet20", 10, 3)
    costs = _costs.layer_costs(model, torch.zeros(1, 3, 32, 32))
    scores = {name: model.get_parameter(name).detach().abs() for name in costs}
    monkeypatch.setattr(latency, "SHARE", Fraction(0))
    assert kept(latency.masks(scores, 0.98, everywhere(scores), costs))["conv1.weight"] == 0


def test_too_few_weights_for_a_share_of_every_layer_are_refused():
    scores = {"a": torch.ones(50), "b": torch.ones(1), "c": torch.ones(1)}
    with pytest.raises(UserError, match="leaves 2 of 52 weights, but latency keeps 3, at least on"):
        latency.masks(scores, 0.96, everywhere(scores), dict.fromkeys(scores, 1.0))


# ---- costs of layers


class Mixed(nn.Module):
    """Layers of every kind that is prunable, one of them unused."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.grouped = nn.Conv2d(16, 16, (3, 1), padding=(1, 0), groups=4)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)
        self.unused = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(self.grouped(self.conv(x))).flatten(2).transpose(1, 2)
        return self.head(self.attention(hidden, hidden, hidden)[0].mean(1))


def test_costs_are_the_tables_rates_times_the_products_a_weight():
    model, table = Mixed(), cost_table.load()
    costs = _costs.layer_costs(model, torch.zeros(1, 3, 8, 8))
    assert list(costs) == prunable(model)
    conv = Layer(kernel=3, stride=2, in_channels=3, out_channels=16, height=8, width=8)
    assert costs["conv.weight"] == pytest.approx(table.nanoseconds_per_weight(conv))
    once = Layer(kernel=1, stride=1, in_channels=8, out_channels=5, height=1, width=1)
    assert costs["head.weight"] == pytest.approx(table.nanoseconds_per_weight(once))
    rates = [
        table.nanoseconds_per_weight(layer) / (layer.macs / layer.weights)
        for layer in dict.fromkeys(shape for each in table.costs.values() for shape in each)
    ]
    usual = float(np.median(rates))
    assert costs["unused.weight"] == pytest.approx(
        table.nanoseconds_per_weight(Layer(1, 1, 4, 4, 1, 1))
    )
    assert costs["up.weight"] == pytest.approx(16 * usual)  # of 4 x 4 inputs each
    assert costs["attention.in_proj_weight"] == pytest.approx(64 * usual)  # tokens
    assert 0 < costs["grouped.weight"] < 100 * 16 * usual
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_table_in_which_weights_cost_nothing_is_refused(monkeypatch):
    rows = rows_of(Layer(1, 1, 1, 1, 1, 1), lambda kept: 2 - kept)
    monkeypatch.setattr(_costs, "load", lambda: cost_table.table(rows))
    with pytest.raises(UserError, match=r"costs\.csv has a cost that does not grow .*'0\.weight'"):
        _costs.layer_costs(nn.Sequential(nn.Linear(2, 2)), torch.zeros(1, 2))


def test_an_example_that_the_network_cannot_take_is_refused():
    with pytest.raises(UserError, match=r"cannot take an example of shape \[1, 4, 8, 8\]"):
        _costs.layer_costs(build("resnet8", 10, 3), torch.zeros(1, 4, 8, 8))


# ---- networks, and the library


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return build("resnet8", 10, 1)


EXAMPLE = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)


def test_the_library_prunes_as_the_stage_does_and_equal_tables_give_equal_masks():
    model = resnet()
    parent = Checkpoint(resnet().state_dict(), {}, {})
    pruned, metrics = prune_network(parent, resnet(), 0.9, allocation="latency", example=EXAMPLE)
    assert api.prune(model, 0.9, allocation="latency", example=EXAMPLE) == metrics
    for name, mask in pruned.masks.items():
        assert torch.equal(api.masks(model)[name], mask)
    spread = metrics["layers"]
    assert spread["conv1.weight"] < spread["stages.0.conv1.weight"] > spread["fc.weight"]


def test_another_table_gives_other_masks(monkeypatch):
    def masks() -> dict[str, Tensor]:
        parent = Checkpoint(resnet().state_dict(), {}, {})
        return prune_network(parent, resnet(), 0.9, allocation="latency", example=EXAMPLE)[0].masks

    before = masks()
    flat = cost_table.table(rows_of(Layer(1, 1, 1, 1, 1, 1), lambda kept: 1 + kept))
    monkeypatch.setattr(_costs, "load", lambda: flat)
    after = masks()
    assert sum(kept(before).values()) == sum(kept(after).values())
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_pruning_without_an_example_is_refused_in_a_sentence():
    model = resnet()
    with pytest.raises(UserError, match=r"latency needs the size of the images: .*--data"):
        api.prune(model, 0.9, allocation="latency")
    assert not api.masks(model)


# ---- stages


def plan(**changes: object) -> Plan:
    settings = load(ROOT / "params.yaml").model_dump() | {"recipe": "digits", "seeds": [0]}
    return build_plan(Experiment.model_validate(settings | changes))


@pytest.mark.parametrize("script", ["prune", "reprune"])
def test_the_table_is_a_dependency_of_the_stages_that_weigh_costs_and_of_no_other(script):
    code = {"pipeline/inference/costs.py", "pipeline/prune/allocations/latency.py"}
    for allocation, used in (("latency", True), ("global", False)):
        of = plan(prune={"allocation": allocation}, methods=["imp_reprune", "sms"])
        nodes = [node for node in of.nodes.values() if node.script == script]
        assert nodes
        for node in nodes:
            dependencies = dvc_yaml.dependencies(node)
            assert (TABLE in dependencies) is used
            assert (code <= set(dependencies)) is used
            assert not used or "artifacts/data" in dependencies
            assert not [file for file in dependencies if file.endswith(".c")]
        others = [node for node in of.nodes.values() if node.script not in {"prune", "reprune"}]
        for node in others:
            assert not {TABLE, *code} & set(dvc_yaml.dependencies(node))


def test_names_of_stages_are_those_of_the_global_allocation():
    names = [
        set(plan(prune={"allocation": each}, methods=["imp", "imp_mx", "sms"]).nodes)
        for each in ("global", "latency")
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("method", ["gmp", "dpf_sms", "lc"])
def test_pruning_during_training_is_refused(method):
    with pytest.raises(UserError, match=f"prune.allocation is latency, but {method} has its own"):
        plan(prune={"allocation": "latency"}, methods=[method])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"recipe": "camvid_pspnet", "task": "segmentation"}, "needs a classifier, but the recip"),
        ({"prune": {"structure": "filters"}}, "prune.structure is filters: set it to weights"),
        ({"study": {"latency": {"allocations": ["fast"]}}}, "study latency: prune.allocation is "),
    ],
)
def test_the_study_refuses_what_it_cannot_compare(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        plan(studies=["latency"], methods=["imp"], **changes)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Return digits and a network that has seen them once."""
    folder = tmp_path_factory.mktemp("latency")
    data, dense = folder / "data", folder / "dense"
    assert stage("prepare", "--name", "digits", "--out", data).returncode == 0
    flags = ["--network", "resnet8", "--schedule", "constant", "--learning-rate", 0.01]
    assert stage("pretrain", "--data", data, *flags, *TRAINING, "--out", dense).returncode == 0
    return data, dense


def test_the_stages_prune_by_cost_and_measure_the_time(folders, tmp_path):
    data, dense = folders
    flags = ["--parent", dense, "--phase", 1, "--sparsity", 0.95, "--allocation", "latency"]
    assert refused(stage("prune", *flags, "--out", tmp_path / "x"), "latency needs the size of")
    done = stage("prune", *flags, "--data", data, "--out", tmp_path / "pruned")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "pruned" / "metrics.json").read_text())
    assert found["sparsity"] == pytest.approx(0.95, abs=1e-4)
    assert found["dead_layers"] == []
    inputs = ["--data", data, "--model", tmp_path / "pruned"]
    assert stage("latency", *inputs, "--out", tmp_path / "timed").returncode == 0
    timed = json.loads((tmp_path / "timed" / "metrics.json").read_text())
    assert timed["difference"] <= 1e-4
    assert set(timed["latency"]) == {"batch_1", "batch_64"}
    for each in timed["latency"].values():
        assert each["speedup"] == pytest.approx(each["dense_ms"] / each["compiled_ms"])


# ---- measurement


def test_other_outputs_are_refused(monkeypatch):
    monkeypatch.setattr(compiled_speed, "compile", lambda *_: nn.Flatten())
    model = nn.Sequential(nn.Flatten(), nn.ReLU())
    with pytest.raises(UserError, match="the compiled network differs from PyTorch by 2 of the la"):
        compiled_speed.compiled_latency(model, torch.tensor([[[[-1.0, 0.5]]]]))


def test_without_a_compiler_no_time_is_measured(monkeypatch):
    """The time would be PyTorch's, and stay in the cache after a compiler was installed."""
    monkeypatch.setenv("CC", "no-such-compiler")
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval()
    with pytest.raises(UserError, match="CC=no-such-compiler was not found: install gcc or clang"):
        compiled_speed.compiled_latency(model, torch.randn(1, 3, 8, 8), seconds=0.0)


def test_time_is_measured_of_both_networks_and_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).train()
    found = compiled_speed.compiled_latency(model, torch.randn(3, 3, 8, 8), seconds=0.0)
    assert model.training
    assert found["isa"] == kernels.best_isa()
    assert found["cpu"]
    assert all(value > 0 for each in found["latency"].values() for value in each.values())
