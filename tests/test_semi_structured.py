"""N:M pruning: the count of every group, the order within it, and what keeps it afterwards."""

import argparse
import warnings
from decimal import Decimal, getcontext
from itertools import pairwise
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline import registry
from pipeline.config.experiment import Experiment, load
from pipeline.errors import UserError
from pipeline.evaluate.cost import cost
from pipeline.models.build import build
from pipeline.plan.build import build as build_plan
from pipeline.plan.plan import Plan
from pipeline.prune.pattern import Pattern, parse
from pipeline.prune.prunable import prunable
from pipeline.prune.reprune import AVERAGES, average_union
from pipeline.prune.semi_structured import group_mask, prune_semi_structured
from pipeline.stagekit.pruning_flags import add_pruning_flags, pruned
from pipeline.storage.checkpoint import Checkpoint
from pipeline.storage.checkpoint import sparsity as sparsity_of
from tests.test_params import ROOT, edited
from tests.test_soup import merged

TWO_OF_FOUR = Pattern(2, 4)
patterns = st.integers(2, 8).flatmap(
    lambda m: st.builds(Pattern, st.integers(1, m - 1), st.just(m))
)


def brute_force(weight: np.ndarray, n: int, m: int, alive: np.ndarray) -> np.ndarray:
    """Return the mask of [out, in, ...] by a loop over its groups: dead, then |w|, then channel."""
    mask = np.ones(weight.shape, dtype=bool)
    for out in range(weight.shape[0]):
        for place in np.ndindex(*weight.shape[2:]):
            for first in range(0, weight.shape[1], m):
                spots = [(out, channel, *place) for channel in range(first, first + m)]
                order = sorted(spots, key=lambda at: (alive[at], abs(weight[at]), at[1]))
                for at in order[: m - n]:
                    mask[at] = False
    return mask


@st.composite
def layers(draw: st.DrawFn) -> tuple[Tensor, Pattern]:
    """Return a weight of a linear layer or a convolution and an N:M; few values, so many ties."""
    pattern = draw(patterns)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    pool = random.normal(size=draw(st.sampled_from([1, 3, 1000]))).astype(np.float32)
    kernel = draw(st.sampled_from([(), (1, 1), (3, 2)]))
    shape = (draw(st.integers(1, 4)), pattern.m * draw(st.integers(1, 3)), *kernel)
    signs = random.choice(np.float32([-1, 1]), shape)
    return torch.from_numpy(random.choice(np.append(pool, np.float32(0)), shape) * signs), pattern


def mask_of(weight: Tensor, pattern: Pattern, alive: Tensor | None = None) -> Tensor:
    alive = torch.ones_like(weight, dtype=torch.bool) if alive is None else alive
    return group_mask(weight.abs(), pattern, alive)


def counts(mask: Tensor, m: int) -> set[int]:
    """Return the different counts of True in groups of ``m`` along dimension 1."""
    return set(mask.transpose(1, -1).reshape(-1, m).sum(1).tolist())


@given(layers())
def test_equals_a_loop_over_the_groups(layer):
    weight, pattern = layer
    mask = mask_of(weight, pattern)
    dense = np.ones(weight.shape, dtype=bool)
    np.testing.assert_array_equal(mask, brute_force(weight.numpy(), pattern.n, pattern.m, dense))
    assert counts(mask, pattern.m) == {pattern.n}
    assert mask.is_contiguous()


@given(layers(), st.data())
def test_masks_nest_from_level_to_level_and_each_is_exact(layer, data):
    """Also when the kept weights have become smaller than the pruned ones were."""
    weight, pattern = layer
    alive = torch.ones_like(weight, dtype=torch.bool)
    phases = data.draw(st.integers(1, pattern.most_phases))
    for level in pattern.levels(phases):
        mask = mask_of(weight, level, alive)
        expected = brute_force(weight.numpy(), level.n, level.m, alive.numpy())
        np.testing.assert_array_equal(mask, expected)
        assert not (mask & ~alive).any()
        assert counts(mask, level.m) == {level.n}
        weight, alive = torch.where(mask, weight * 1e-3, weight), mask


@given(layers(), st.floats(2**-20, 2**20))
def test_scale_and_sign_change_nothing(layer, scale):
    weight, pattern = layer
    power = 2.0 ** round(np.log2(scale))  # exact, so that ties stay ties
    assert torch.equal(mask_of(weight, pattern), mask_of(-power * weight, pattern))


@given(layers(), st.randoms(use_true_random=False))
def test_permuted_groups_and_outputs_have_the_permuted_mask(layer, random):
    weight, pattern = layer
    groups = torch.arange(weight.shape[1]).view(-1, pattern.m)
    channels = groups[random.sample(range(len(groups)), len(groups))].flatten()
    outputs = torch.tensor(random.sample(range(len(weight)), len(weight)))
    permuted = mask_of(weight[outputs][:, channels], pattern)
    assert torch.equal(permuted, mask_of(weight, pattern)[outputs][:, channels])


def test_among_equal_weights_the_earlier_channel_goes():
    mask = mask_of(torch.ones(1, 8, 1, 1), Pattern(1, 4))
    assert mask.flatten().tolist() == [False, False, False, True] * 2


def test_equals_torchs_sparsifier_where_nothing_ties():
    """torch.ao.pruning works on rows: of a convolution, channels-last as im2col lays them out."""
    from torch.ao.pruning import WeightNormSparsifier

    torch.manual_seed(0)
    convolution = nn.Conv2d(8, 6, 3)
    rows = convolution.weight.detach().permute(0, 2, 3, 1).reshape(6, -1)
    for weight, ours in (
        (torch.randn(5, 12), lambda w: mask_of(w, TWO_OF_FOUR)),
        (rows, lambda w: mask_of(w.view(6, 3, 3, 8).permute(0, 3, 1, 2), TWO_OF_FOUR)),
    ):
        model = nn.Sequential(nn.Linear(weight.shape[1], len(weight), bias=False))
        model[0].weight.data = weight.clone()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own
            sparsifier = WeightNormSparsifier(
                sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2
            )
            sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
            sparsifier.step()
            sparsifier.squash_mask()
        expected = (model[0].weight != 0).detach()
        mask = ours(weight)
        found = mask if mask.ndim == 2 else mask.permute(0, 2, 3, 1).reshape(expected.shape)
        assert torch.equal(found, expected)


def test_a_group_that_has_lost_too_much_is_refused():
    alive = torch.tensor([[True, False, False, False]])
    with pytest.raises(UserError, match="a group of 4 weights has fewer than 2 left"):
        mask_of(torch.ones(1, 4), TWO_OF_FOUR, alive)


# ---- networks


class Mixed(nn.Module):
    """A layer of every kind: the channels that a group runs over, and layers that stay dense."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)  # 3 inputs: dense
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)  # 1 input: dense
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.up = nn.ConvTranspose2d(8, 4, 2, groups=2)
        self.odd = nn.ConvTranspose2d(4, 8, 2, groups=2)  # 2 inputs a group: dense
        self.attention = nn.MultiheadAttention(8, 2)
        self.fc = nn.Linear(8, 3)


def checkpoint_of(model: nn.Module) -> Checkpoint:
    return Checkpoint({k: v.clone() for k, v in model.state_dict().items()}, {}, {"phase": 0})


def test_every_kind_of_layer_has_the_pattern_along_its_inputs():
    torch.manual_seed(0)
    model = Mixed()
    result, metrics = prune_semi_structured(checkpoint_of(model), model, TWO_OF_FOUR)
    assert metrics["dense_layers"] == ["stem.weight", "depthwise.weight", "odd.weight"]
    assert result.meta["structure"] == "2:4"
    for name in prunable(model):
        mask, weight = result.masks[name], model.get_parameter(name).detach()
        assert torch.equal(result.state[name], torch.where(mask, weight, 0.0))
        if name in metrics["dense_layers"]:
            assert mask.all()
            continue
        if name == "up.weight":  # [in, out, kh, kw]
            mask, weight = mask.transpose(0, 1), weight.transpose(0, 1)
        dense = np.ones(weight.shape, dtype=bool)
        np.testing.assert_array_equal(mask, brute_force(weight.numpy(), 2, 4, dense))
    assert {"attention.in_proj_weight", "attention.out_proj.weight"} <= result.masks.keys()


@pytest.mark.parametrize("pattern", [TWO_OF_FOUR, Pattern(1, 4), Pattern(3, 8)], ids=str)
def test_sparsity_is_the_true_one_and_macs_count_the_kept_weights(pattern):
    """The stem has one channel, so it stays dense; every other layer has exactly 1 - N/M."""
    torch.manual_seed(0)
    model = build("resnet8", 10, 1)
    result, metrics = prune_semi_structured(checkpoint_of(model), model, pattern)
    assert metrics["dense_layers"] == ["conv1.weight"]
    sizes = {name: model.get_parameter(name).numel() for name in prunable(model)}
    left = pattern.n * (sum(sizes.values()) - sizes["conv1.weight"]) / pattern.m
    assert metrics["kept"] == left + sizes["conv1.weight"]
    assert metrics["sparsity"] == 1 - metrics["kept"] / sum(sizes.values())
    assert metrics["sparsity"] == sparsity_of(result, list(sizes)) == result.meta["sparsity"]
    assert metrics["layers"] == {
        name: 0 if name == "conv1.weight" else pattern.sparsity for name in sizes
    }
    measured = cost(model, result.masks, torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    stem = measured["layers"]["conv1"]["macs"]
    expected = stem + (measured["macs"] - stem) * pattern.n / pattern.m
    assert measured["sparse_macs"] == pytest.approx(expected)


def test_a_network_without_a_divisible_layer_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Linear(6, 3))
    with pytest.raises(UserError, match=r"2:4, but no layer has input channels .* by 4: take"):
        prune_semi_structured(checkpoint_of(model), model, TWO_OF_FOUR)


# ---- what keeps it


@pytest.mark.parametrize("rule", registry.names("soup"))
@given(seed=st.integers(0, 2**32), pattern=patterns)
def test_every_merge_rule_keeps_it(rule, seed, pattern):
    torch.manual_seed(seed)
    weight = torch.randn(4, 2 * pattern.m, 2, 2)
    mask = mask_of(weight, pattern)
    parent, *candidates = (
        Checkpoint(
            {"w": torch.where(mask, weight + 0.1 * torch.randn(weight.shape), 0.0)}, {"w": mask}, {}
        )
        for _ in range(4)
    )
    soup = merged(rule, candidates, parent).checkpoint
    assert torch.equal(soup.masks["w"], mask)
    assert counts(soup.state["w"] != 0, pattern.m) == {pattern.n}


@pytest.mark.parametrize("average", AVERAGES)
def test_an_average_of_different_masks_gets_it_back(average):
    torch.manual_seed(0)
    runs = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Linear(8, 4))
        runs.append(prune_semi_structured(checkpoint_of(model), model, TWO_OF_FOUR)[0])
    union = average_union(runs, prunable(model), average)
    assert max(counts(union.masks["1.weight"], 4)) > 2
    model.load_state_dict(union.state)
    repruned, metrics = prune_semi_structured(union, model, TWO_OF_FOUR)
    assert (
        counts(repruned.masks["1.weight"], 4) == counts(repruned.state["1.weight"] != 0, 4) == {2}
    )
    assert metrics["dense_layers"] == ["0.weight"]


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:The PyTorch API of SparseSemiStructuredTensor")
def test_sparse_tensor_cores_take_a_pruned_weight():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 128, bias=False)).half()
    result, _ = prune_semi_structured(checkpoint_of(model), model, TWO_OF_FOUR)
    weight, inputs = result.state["0.weight"].cuda(), torch.randn(256, 64).half().cuda()
    compressed = torch.sparse.to_sparse_semi_structured(weight)
    torch.testing.assert_close(compressed @ inputs, weight @ inputs, rtol=1e-2, atol=1e-2)


# ---- levels, settings and the plan


@given(patterns, st.data())
def test_levels_fall_to_n_and_prune_in_every_phase(pattern, data):
    phases = data.draw(st.integers(1, pattern.most_phases))
    kept = [pattern.m, *(level.n for level in pattern.levels(phases))]
    assert len(kept) == phases + 1
    assert kept[-1] == pattern.n
    assert all(after < before for before, after in pairwise(kept))
    assert {level.m for level in pattern.levels(phases)} == {pattern.m}


@given(patterns, st.data())
def test_levels_are_those_of_equal_shares_rounded_up_where_these_differ(pattern, data):
    """N_p = ceil(M (N/M)^(p/P)), here in decimals, unless two phases would have the same level."""
    phases = data.draw(st.integers(1, pattern.most_phases))
    getcontext().prec = 60
    ratio = Decimal(pattern.n) / pattern.m
    shares = [
        ceil((pattern.m * ratio ** (Decimal(p) / phases)).quantize(Decimal("1e-40")))
        for p in range(1, phases + 1)
    ]
    if sorted({pattern.m, *shares}, reverse=True) == [pattern.m, *shares]:
        assert [level.n for level in pattern.levels(phases)] == shares


@pytest.mark.parametrize(
    ("text", "phases", "expected"),
    [
        ("2:4", 1, ["2:4"]),
        ("2:4", 2, ["3:4", "2:4"]),
        ("1:4", 2, ["2:4", "1:4"]),
        ("1:4", 3, ["3:4", "2:4", "1:4"]),
        ("1:8", 7, ["7:8", "6:8", "5:8", "4:8", "3:8", "2:8", "1:8"]),
        ("1:8", 3, ["4:8", "2:8", "1:8"]),
    ],
)
def test_levels_of_common_patterns(text, phases, expected):
    pattern = parse(text)
    assert pattern is not None
    assert [str(level) for level in pattern.levels(phases)] == expected


@pytest.mark.parametrize(
    "value", ["4:4", "4:2", "0:4", "02:4", "2 : 4", "2:4 ", "2:4:8", "2/4", ":", 124, None, True]
)
def test_other_values_are_no_pattern_and_are_refused(tmp_path, value):
    assert parse(value) is None
    if value is not None:
        with pytest.raises(UserError, match=r'N:M in quotes with 1 <= N < M, such as "2:4"$'):
            load(edited(tmp_path, prune__structure=value))


@pytest.mark.parametrize("text", ["2:4", "'2:4'", '"2:4"'])
def test_quoted_or_not_it_is_the_same_setting(tmp_path, text):
    """DVC writes it unquoted, which YAML 1.1 reads as the number 124, but not YAML 1.2."""
    path = tmp_path / "params.yaml"
    params = (ROOT / "params.yaml").read_text()
    assert "structure: weights" in params
    path.write_text(params.replace("structure: weights", f"structure: {text}"))
    assert load(path).prune.structure == "2:4"


def test_set_by_dvc_it_is_the_same_setting(tmp_path):
    from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

    path = edited(tmp_path)
    for override in ("prune.structure=1:4", "prune.structure='2:4'"):
        apply_overrides(str(path), [override])
        assert load(path).prune.structure in override
    for sweep in get_hydra_sweeps({str(path): ["prune.structure=1:4,2:4"]}):
        apply_overrides(str(path), sweep[str(path)])
    assert load(path).prune.structure == "2:4"


@pytest.mark.parametrize(
    ("structure", "sparsity", "phases"), [("2:4", 0.5, 2), ("1:4", 0.75, 3), ("1:16", 0.9375, 3)]
)
def test_null_is_the_patterns_own_sparsity_and_at_most_the_recipes_phases(
    tmp_path, structure, sparsity, phases
):
    """The recipe has three phases to 95 %."""
    experiment = load(edited(tmp_path, prune__structure=structure))
    assert (experiment.target_sparsity, experiment.phases) == (sparsity, phases)
    one = load(edited(tmp_path, prune__structure=structure, phases=1, target_sparsity=sparsity))
    assert (one.target_sparsity, one.phases) == (sparsity, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"target_sparsity": 0.9},
            ["target_sparsity is 0.9", "prune.structure is 2:4", "prunes 0.5"],
        ),
        ({"phases": 3}, ["phases is 3", "prune.structure is 2:4", "at most 2"]),
        ({"prune__allocation": "erk"}, ["prune.structure is 2:4", "prune.allocation is erk"]),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, changes, words):
    with pytest.raises(UserError) as error:
        load(edited(tmp_path, prune__structure="2:4", **changes))
    assert all(word in str(error.value) for word in ["params.yaml: ", *words])
    assert "\n" not in str(error.value)


def plan(**changes: object) -> Plan:
    values = load(ROOT / "params.yaml").model_dump()
    values |= {"prune": values["prune"] | {"structure": "1:4"}, "target_sparsity": 0.75, "m": 2}
    return build_plan(Experiment.model_validate(values | changes))


def test_each_phase_prunes_to_its_level_and_reprune_to_the_last():
    of = plan(methods=["sms", "imp_reprune"], merge=["uniform"], phases=2, seeds=[0])
    structures = {
        (node.script, node.labels["phase"]): (
            node.arguments["structure"],
            node.arguments["sparsity"],
        )
        for node in of.nodes.values()
        if node.script in {"prune", "reprune"}
    }
    assert structures == {
        ("prune", "1"): ("2:4", 0.5),
        ("prune", "2"): ("1:4", 0.75),
        ("reprune", "2"): ("1:4", 0.75),
    }
    for node in of.nodes.values():
        if node.script in {"prune", "reprune"}:
            assert node.arguments["criterion"] == "magnitude"
            assert not {"allocation", "seed"} & node.arguments.keys()
            rules = [name for name in node.modules if name.startswith("pipeline.prune")]
            assert rules == ["pipeline.prune.criteria.magnitude"]
    assert {row.sparsity for row in of.rows} == {0, 0.5, 0.75}
    assert not [row for row in of.rows if row.shrink]


@pytest.mark.parametrize(
    "method", sorted({*registry.names("sparsify"), "gmp_sms", "dpf_sms", "rigl_sms"})
)
def test_pruning_during_training_is_refused(method):
    with pytest.raises(UserError, match=f"prune.structure is 1:4, but {method} prunes single"):
        plan(methods=[method])


@pytest.mark.parametrize(
    "method", ["bimp", "bimp_sms", "imp_align", "imp_caa", "imp_swa", "sms_swa"]
)
def test_methods_that_prune_after_training_use_it(method):
    of = plan(methods=[method], phases=2)
    structures = [n.arguments.get("structure") for n in of.nodes.values() if "prune" in n.script]
    assert set(structures) == {"2:4", "1:4"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ["imp_phases"], "phases": 2}, "imp_phases: phases is 4, .* at most 3"),
        ({"studies": ["more_phases"], "phases": 3}, "study more_phases: phases is 6, .* at most 3"),
        ({"studies": ["length"]}, "study.length has a sparsity of 0.9, .* is 1:4: .* 0.75 only"),
        ({"studies": ["pairs"]}, "study.pairs has a sparsity of 0.9, .* is 1:4: .* 0.75 only"),
    ],
)
def test_methods_and_studies_that_do_not_fit_are_named(changes, words):
    with pytest.raises(UserError, match=words):
        plan(**changes)


def test_studies_at_the_patterns_sparsity_and_of_alignment_use_it():
    grid = {"length": {"sparsities": [0.75], "epochs": [1]}}
    of = plan(studies=["length", "alignment"], study=grid, phases=3)
    shots = {
        n.arguments["structure"] for n in of.nodes.values() if n.name.endswith("oneshot75-p1-prune")
    }
    repruned = {n.arguments["structure"] for n in of.nodes.values() if n.script == "reprune"}
    assert shots == {"1:4"}
    assert repruned == {"3:4", "2:4", "1:4"}


def test_flags_that_contradict_each_other_are_refused(capsys):
    parser = argparse.ArgumentParser()
    add_pruning_flags(parser)
    model = nn.Sequential(nn.Linear(8, 4))
    flags = parser.parse_args(["--sparsity", "0.5", "--structure", "2:4"])
    assert counts(pruned(checkpoint_of(model), model, flags)[0].masks["0.weight"], 4) == {2}
    wrong = parser.parse_args(["--sparsity", "0.6", "--structure", "2:4"])
    with pytest.raises(
        UserError, match=r"the sparsity is 0\.6, but the structure is 2:4: set it to 0\.5"
    ):
        pruned(checkpoint_of(model), model, wrong)
    with pytest.raises(SystemExit):
        parser.parse_args(["--sparsity", "0.5", "--structure", "4:2"])
    assert "--structure" in capsys.readouterr().err
