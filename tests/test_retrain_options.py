"""Options of retraining: EMA, SAM, S2-SAM and distillation against their written equations.

Each is trained a few steps beside an independent implementation on the loop's own batches: plain
torch, one network for each set of weights, and gradients by `torch.autograd.grad`.
"""

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from math import inf, nan
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.config.experiment import load
from pipeline.data.base import Dataset
from pipeline.errors import UserError
from pipeline.models.build import build as new_network
from pipeline.plan import dvc_yaml
from pipeline.plan.build import build
from pipeline.plan.choices import choices
from pipeline.plan.dependencies import closure
from pipeline.plan.plan import Plan
from pipeline.report.page import _options
from pipeline.stagekit.model_folder import write
from pipeline.stagekit.retrain_flags import averages, criterion, options, step_type
from pipeline.stagekit.training_flags import add_option_flags
from pipeline.storage.checkpoint import Checkpoint
from pipeline.train.batches import Batches
from pipeline.train.criterion import CrossEntropy
from pipeline.train.cuda_graph import Eager, Replayed, stepper
from pipeline.train.distill import Distilled
from pipeline.train.ema import AverageSteps, decay_of_window
from pipeline.train.loop import Hook, Settings, train
from pipeline.train.retrain_options import PASSES, RetrainOptions, modules, passes
from pipeline.train.s2sam import SingleStep
from pipeline.train.sam import SharpnessAware
from pipeline.train.step import Step
from pipeline.train.swa import AverageEpochs
from tests.test_loop import AUGMENTED, CPU, dataset, random_masks, resnet, same_bits, small
from tests.test_params import edited
from tests.test_step import RATES, OnFakeGpu, capture

ROOT = Path(__file__).parent.parent
SETTINGS = Settings(16, 5e-4, augmentation=AUGMENTED)
CLIPPED = replace(SETTINGS, clip_norm=0.5, label_smoothing=0.1)
Gradients = dict[str, Tensor]


def sharp(kind: type[Step], rho: float = 0.5) -> Callable[..., Step]:
    return partial(kind, rho=rho)


def dense(seed: int = 5) -> nn.Module:
    """Return another network than the student, with running statistics of its own."""
    model = small(seed)
    train(model, dataset(), SETTINGS, [0.1] * 4, seed=seed)
    return model


def distilled(weight: float = 0.7, temperature: float = 3.0) -> Distilled:
    return Distilled(CrossEntropy(), dense(), weight=weight, temperature=temperature)


def trained(
    network: Callable[[], nn.Module] = small, settings: Settings = SETTINGS, **more: object
) -> tuple[nn.Module, list[dict[str, float]]]:
    model = network()
    masks = random_masks(model)
    return model, train(model, dataset(), settings, RATES, seed=3, masks=masks, **more)


class Weights(Hook):
    """Remembers the weights after each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_step_end(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        self.steps.append({n: p.detach().clone() for n, p in model.named_parameters()})


# ---- an independent SGD under masks, which takes the gradient from a rule


class Reference:
    """SGD under masks on the loop's batches; ``rule`` gives the gradients of a step."""

    def __init__(self, network: Callable[[], nn.Module], settings: Settings) -> None:
        self.model = network().to(memory_format=torch.channels_last).train()
        self.settings = settings
        self.masks = random_masks(self.model)
        with torch.no_grad():
            for name, mask in self.masks.items():
                self.model.get_parameter(name).mul_(mask)

    def gradients(self, model: nn.Module, images: Tensor, labels: Tensor) -> Gradients:
        """Return dL/dw at the weights of ``model``, times the masks."""
        named = dict(model.named_parameters())
        found = torch.autograd.grad(self.loss(model, images, labels), list(named.values()))
        return {
            name: gradient * self.masks.get(name, torch.tensor(1.0))
            for name, gradient in zip(named, found, strict=True)
        }

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.settings.label_smoothing
        return cross_entropy(model(images), labels, label_smoothing=smoothing)

    def moved(self, by: Gradients, rho: float) -> nn.Module:
        """Return a copy whose weights are w + rho g / ||g||."""
        norm = torch.cat([gradient.flatten() for gradient in by.values()]).norm()
        copy = deepcopy(self.model)
        with torch.no_grad():
            for name, weight in copy.named_parameters():
                weight.add_(rho * by[name] / norm)
        return copy

    def train(self, rule: Callable[[Tensor, Tensor], Gradients]) -> nn.Module:
        decay = self.settings.weight_decay
        optimiser = torch.optim.SGD(
            self.model.parameters(), 1.0, 0.9, weight_decay=decay, nesterov=decay > 0
        )
        settings = self.settings
        batches = Batches(dataset(), settings.batch_size, settings.augmentation, seed=3, device=CPU)
        steps = (batch for _ in RATES for batch in batches.epoch())
        for rate, (images, labels) in zip(RATES, steps, strict=False):
            optimiser.param_groups[0]["lr"] = rate
            gradients = rule(images, labels)
            for name, weight in self.model.named_parameters():
                weight.grad = gradients[name]
            if settings.clip_norm:
                nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
            optimiser.step()
        return self.model


def assert_equal(one: nn.Module, other: nn.Module, tolerance: float = 2e-6) -> None:
    """Compare parameters and running statistics."""
    for (name, value), expected in zip(
        one.state_dict().items(), other.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=tolerance, msg=name)


@pytest.mark.parametrize("settings", [SETTINGS, CLIPPED], ids=["plain", "clipped"])
def test_sam_is_the_gradient_at_the_sharpest_weights_nearby(settings):
    """Foret et al. 2021: two gradients of one batch; BatchNorm sees the first pass only."""
    reference = Reference(small, settings)

    def rule(images: Tensor, labels: Tensor) -> Gradients:
        first = reference.gradients(reference.model, images, labels)
        return reference.gradients(reference.moved(first, 0.5), images, labels)

    expected = reference.train(rule)
    model, _ = trained(settings=settings, step_type=sharp(SharpnessAware))
    assert_equal(model, expected)
    plain, _ = trained(settings=settings)
    assert not torch.allclose(model[0].weight, plain[0].weight, atol=1e-3)


@pytest.mark.parametrize("settings", [SETTINGS, CLIPPED], ids=["plain", "clipped"])
def test_single_step_sam_moves_by_the_gradient_of_the_step_before(settings):
    """Ji et al. 2024: one gradient a step, at weights moved by the one before."""
    reference, last = Reference(small, settings), []

    def rule(images: Tensor, labels: Tensor) -> Gradients:
        model = reference.moved(last[-1], 0.5) if last else reference.model
        gradients = reference.gradients(model, images, labels)
        if last:  # its one pass moves the running statistics
            for buffer, value in zip(reference.model.buffers(), model.buffers(), strict=True):
                buffer.copy_(value)
        last.append({name: gradient.clone() for name, gradient in gradients.items()})
        return gradients

    expected = reference.train(rule)
    model, _ = trained(settings=settings, step_type=sharp(SingleStep))
    assert_equal(model, expected)
    assert not same_bits(model, trained(settings=settings)[0])


@pytest.mark.parametrize("kind", [SharpnessAware, SingleStep])
@pytest.mark.parametrize("network", [small, resnet])
def test_a_perturbation_of_norm_0_is_sgd_bit_for_bit(kind, network):
    plain, one = trained(network, CLIPPED)
    sharpened, two = trained(network, CLIPPED, step_type=sharp(kind, 0.0))
    assert same_bits(plain, sharpened)
    assert one == two, "losses and counts are those of one pass over the batch"


@pytest.mark.parametrize(("kind", "count"), [(SharpnessAware, 2), (SingleStep, 1)])
def test_passes_are_those_that_are_counted(kind, count):
    model, calls = small(), []
    model.register_forward_hook(lambda *_: calls.append(model.training))
    train(model, dataset(), SETTINGS, [0.1] * 4, seed=0, step_type=sharp(kind))
    name = {SharpnessAware: "sam", SingleStep: "s2sam"}[kind]
    assert calls.count(True) == 4 * count == 4 * passes(name)
    assert passes("none") == 1
    assert int(model[1].num_batches_tracked) == 4, "statistics move once a step"


@pytest.mark.parametrize("kind", [SharpnessAware, SingleStep])
@pytest.mark.parametrize("rho", [-0.1, inf, nan])
def test_a_rho_out_of_range_is_refused(kind, rho):
    with pytest.raises(UserError, match=r"retrain\.rho is .* at least 0"):
        trained(step_type=sharp(kind, rho))


@pytest.mark.parametrize("kind", [SharpnessAware, SingleStep])
def test_a_replayed_step_has_the_bits_of_a_called_one(kind, monkeypatch):
    """Warming up leaves no trace, of the perturbation either."""
    steps = type("Fake", (kind, OnFakeGpu), {})
    monkeypatch.setattr("pipeline.train.cuda_graph.capture", capture)
    runs = []
    for replayed in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=replayed: found)
        more = {"criterion": distilled(), "hooks": [AverageSteps(0.5)], "step_type": sharp(steps)}
        runs.append(trained(settings=CLIPPED, **more))
    assert same_bits(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", [SharpnessAware, SingleStep])
def test_a_captured_step_has_the_bits_of_a_called_one(kind, precision, monkeypatch):
    kinds, runs = [], []
    teacher = dense().to(device="cuda", memory_format=torch.channels_last)
    monkeypatch.setattr(
        "pipeline.train.loop.stepper", lambda *given: kinds.append(stepper(*given)) or kinds[-1]
    )
    for graph in (False, True):
        more = {"step_type": sharp(kind), "hooks": [AverageSteps(0.5)], "device": "cuda"}
        more["criterion"] = Distilled(CrossEntropy(), teacher, weight=0.5, temperature=2.0)
        settings = replace(CLIPPED, graph=graph, precision=precision)
        runs.append(trained(resnet, settings, **more))
    assert [type(each) for each in kinds] == [Eager, Replayed]
    assert same_bits(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


# ---- exponential moving average


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.99])
def test_the_average_weighs_each_step_by_its_age(decay):
    weights = Weights()
    model, _ = trained(hooks=[weights, AverageSteps(decay)])
    factors = [decay ** (len(RATES) - t) for t in range(1, len(RATES) + 1)]
    for name, weight in model.named_parameters():
        terms = [f * w[name].double() for f, w in zip(factors, weights.steps, strict=True)]
        expected = (sum(terms) / sum(factors)).float()
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)


def test_the_average_is_the_usual_one_divided_by_its_bias():
    weights, usual = Weights(), 0.0
    model, _ = trained(hooks=[weights, AverageSteps(0.9)])
    for step in weights.steps:
        usual = 0.9 * usual + 0.1 * step["0.weight"]
    expected = usual / (1 - 0.9 ** len(RATES))
    torch.testing.assert_close(model[0].weight.detach(), expected, rtol=1e-5, atol=1e-6)


def test_decay_0_is_the_last_weights_bit_for_bit():
    assert same_bits(trained()[0], trained(hooks=[AverageSteps(0.0)])[0])


def test_a_training_without_steps_keeps_its_weights():
    model = small()
    train(model, dataset(), SETTINGS, [], seed=0, hooks=[AverageSteps(0.9)])
    assert same_bits(model, small())


@pytest.mark.parametrize("decay", [-0.1, 1.0, nan])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(UserError, match=r"ema\.decay"):
        AverageSteps(decay)


def test_a_window_is_a_fraction_of_the_steps():
    assert decay_of_window(0.1, 1000) == pytest.approx(0.99)
    assert decay_of_window(1.0, 50) == pytest.approx(0.98)
    assert decay_of_window(0.01, 20) == 0.0, "a fifth of a step is the last one"
    for window in (0.0, 1.5, nan):
        with pytest.raises(UserError, match=r"ema\.window"):
            decay_of_window(window, 10)


# ---- distillation


@pytest.mark.parametrize("settings", [SETTINGS, CLIPPED], ids=["plain", "smoothed"])
def test_distillation_is_its_equation_on_the_augmented_batch(settings):
    """By probabilities and a sum over classes, without torch's kl_div."""
    teacher, reference, t, a = dense().eval(), Reference(small, settings), 3.0, 0.7

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        z = model(images)
        with torch.no_grad():
            p = (teacher(images) / t).softmax(1)
        kl = (p * (p.log() - (z / t).softmax(1).log())).sum(1).mean()
        task = cross_entropy(z, labels, label_smoothing=settings.label_smoothing)
        return (1 - a) * task + a * t**2 * kl

    reference.loss = loss
    expected = reference.train(lambda x, y: reference.gradients(reference.model, x, y))
    model, history = trained(settings=settings, criterion=distilled(a, t))
    assert_equal(model, expected)
    plain, _ = trained(settings=settings)
    assert not torch.allclose(model[0].weight, plain[0].weight, atol=1e-3)
    assert {row["accuracy"] <= 1 for row in history} == {True}


def test_weight_0_is_the_task_bit_for_bit():
    plain, one = trained(settings=CLIPPED)
    taught, two = trained(settings=CLIPPED, criterion=distilled(0.0))
    assert same_bits(plain, taught)
    assert one == two


def test_a_network_that_agrees_with_its_teacher_has_nothing_to_learn():
    images, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    teacher = dense().eval()
    taught = Distilled(CrossEntropy(), teacher, weight=1.0, temperature=2.0)
    taught.observe(images)
    scores = teacher(images).requires_grad_()
    loss = taught.loss(scores, labels)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert scores.grad.abs().max() < 1e-6


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_sum_over_the_examples_is_their_mean_times_their_number(reduction):
    taught, images = distilled(), torch.randn(4, 1, 8, 8)
    scores, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    taught.observe(images)
    each = []
    for row in range(4):
        taught.observe(images[row : row + 1])
        each.append(taught.loss(scores[row : row + 1], labels[row : row + 1]))
    taught.observe(images)
    found = taught.loss(scores, labels, reduction=reduction)
    expected = torch.stack(each).sum() / (4 if reduction == "mean" else 1)
    torch.testing.assert_close(found, expected)


def test_the_teacher_stays_as_it_is_and_sees_each_batch_once():
    taught, calls = distilled(), []
    taught.dense.register_forward_hook(lambda *_: calls.append(taught.dense.training))
    before = deepcopy(taught.dense)
    trained(criterion=taught, step_type=sharp(SharpnessAware))
    assert same_bits(before, taught.dense)
    assert calls == [False] * len(RATES), "once a step, though SAM takes two passes"
    assert all(weight.grad is None for weight in taught.dense.parameters())


def test_a_weight_or_temperature_out_of_range_is_refused():
    for weight in (-0.1, 1.1, nan):
        with pytest.raises(UserError, match=r"retrain\.distill is .* in \[0, 1\]"):
            distilled(weight)
    for temperature in (0.0, -1.0, nan):
        with pytest.raises(UserError, match=r"retrain\.temperature"):
            distilled(temperature=temperature)


# ---- masks under all of them


@pytest.mark.parametrize("kind", [None, SharpnessAware, SingleStep])
@pytest.mark.parametrize("average", [AverageSteps(0.9), AverageEpochs(0.0, 3)], ids=["ema", "swa"])
def test_pruned_weights_are_positive_zero_in_every_step_and_at_the_end(kind, average):
    weights = Weights()
    step = None if kind is None else sharp(kind)
    more = {"step_type": step, "criterion": distilled(), "hooks": [weights, average]}
    model, _ = trained(settings=CLIPPED, **more)
    final = dict(model.named_parameters())
    for name, mask in random_masks(small()).items():
        for state in (*weights.steps, final):
            pruned = state[name][~mask]
            assert not pruned.any()
            assert not pruned.signbit().any()


# ---- the stage's flags


def parsed(*words: str) -> RetrainOptions:
    parser = ArgumentParser()
    add_option_flags(parser, RetrainOptions)
    return options(parser.parse_args(words))


def folder_of_dense(root: Path, data: Dataset) -> Path:
    meta = {"network": "resnet8", "classes": 3, "channels": 1, "sparsity": 0.0, "epochs": 1}
    torch.manual_seed(4)
    state = new_network("resnet8", 3, 1).state_dict()
    write(root / "dense", Checkpoint(state, {}, meta), data, CPU)
    return root / "dense"


def test_no_flags_are_plain_sgd(tmp_path):
    chosen, task = parsed(), CrossEntropy()
    assert chosen == RetrainOptions()
    assert averages(chosen, 3, 30) == []
    assert step_type(chosen) is None
    assert criterion(chosen, task, tmp_path, CPU) is task


def test_flags_make_hooks_step_and_criterion(tmp_path):
    [swa] = averages(parsed("--swa-start", "0.5"), 4, 40)
    [ema] = averages(parsed("--ema-decay", "0"), 4, 40)
    [window] = averages(parsed("--ema-window", "0.25"), 4, 40)
    assert (type(swa), swa.after, ema.decay, window.decay) == (AverageEpochs, 2, 0.0, 0.9)
    for words, kind, rho in (
        (["--sam", "sam"], SharpnessAware, 0.05),
        (["--sam", "s2sam", "--rho", "0.1"], SingleStep, 0.1),
    ):
        step = step_type(parsed(*words))(small(), CrossEntropy(), SETTINGS, {}, RATES, CPU)
        assert (type(step), step.rho) == (kind, rho)
    (tmp_path / "dense").mkdir()
    folder = folder_of_dense(tmp_path, dataset())
    chosen = parsed("--distill", "0.5", "--temperature", "2")
    taught = criterion(chosen, CrossEntropy(), folder, CPU)
    assert (taught.weight, taught.temperature) == (0.5, 2.0)
    assert not taught.dense.training


# ---- the plan


def plan(methods: Sequence[str] = ("sms", "imp"), **values: object) -> Plan:
    given = {"methods": list(methods), "merge": ["uniform"], "m": 2, "phases": 2, **values}
    return build(load(ROOT / "params.yaml").with_values(given))


def retrained(of: Plan) -> dict[str, dict]:
    return {name: node.arguments for name, node in of.nodes.items() if node.script == "retrain"}


OPTIONS = {"swa_start", "swa_learning_rate", "ema_decay", "ema_window", "sam", "rho", "distill"}
OPTIONS |= {"temperature"}


@pytest.mark.parametrize(
    ("values", "flags", "used"),
    [
        ({}, {}, ()),
        ({"retrain.rho": 0.2, "retrain.temperature": 2.0, "ema.decay": 0.9}, {}, ()),
        ({"retrain.average": "swa"}, {"swa_start": 0.0}, ()),
        (
            {"retrain.average": "swa", "swa.start": 0.5, "swa.learning_rate": 0.02},
            {"swa_start": 0.5, "swa_learning_rate": 0.02},
            (),
        ),
        ({"retrain.average": "ema"}, {"ema_decay": 0.99}, ("ema",)),
        ({"retrain.average": "ema", "ema.decay": 0.0}, {"ema_decay": 0.0}, ("ema",)),
        ({"retrain.average": "ema", "ema.window": 0.1}, {"ema_window": 0.1}, ("ema",)),
        ({"retrain.sam": "sam"}, {"sam": "sam"}, ("sam",)),
        ({"retrain.sam": "s2sam", "retrain.rho": 0.1}, {"sam": "s2sam", "rho": 0.1}, ("s2sam",)),
        (
            {"retrain.distill": 0.5, "retrain.temperature": 2.0},
            {"distill": 0.5, "temperature": 2.0},
            ("distill",),
        ),
    ],
    ids=str,
)
def test_an_option_is_a_flag_of_every_retraining_and_of_nothing_else(values, flags, used):
    default, of = plan(["sms", "imp", "imp_mx"]), plan(["sms", "imp", "imp_mx"], **values)
    assert of.nodes.keys() == default.nodes.keys()
    watched = {f"pipeline.train.{name}" for name in used}
    for name, node in of.nodes.items():
        plain = default.nodes[name]
        expected = plain.arguments | flags if node.script == "retrain" else plain.arguments
        assert node.arguments == expected, name
        added = set(node.modules) - set(plain.modules)
        assert added == (watched if node.script == "retrain" else set()), name


def test_default_commands_have_no_option_and_depend_on_no_code_of_one():
    of = plan()
    for node in of.nodes.values():
        words = " ".join(dvc_yaml.command(node))
        assert not any(f"--{option.replace('_', '-')} " in words for option in OPTIONS), words
    assert set(vars(RetrainOptions())) == OPTIONS
    files = {f"pipeline/train/{name}.py" for name in ("ema", "sam", "s2sam", "distill")}
    assert not files & set(closure("stages.retrain"))
    assert files <= set(closure(*modules({"ema_decay": 0.9, "sam": "s2sam", "distill": 0.1})))


def test_imp_swa_and_sms_swa_abbreviate_the_average():
    """The same flags, for stages with the methods' own names."""
    rate = load(ROOT / "params.yaml").pretrain.learning_rate
    imp = plan(["imp"], **{"retrain.average": "swa"})
    sms_values = {"retrain.average": "swa", "swa.start": 0.5, "swa.learning_rate": rate / 2}
    sms = plan(["sms"], **sms_values)
    ignored = {"parent"}
    for method, abbreviated, full in (
        ("imp_swa", plan(["imp_swa"]), imp),
        ("sms_swa", plan(["sms_swa"]), sms),
    ):
        pairs = zip(retrained(abbreviated).items(), retrained(full).values(), strict=True)
        for (name, flags), expected in pairs:
            assert name.startswith(f"s0-{method}-p")
            assert list(flags) == list(expected), "in the order of the command"
            for flag in flags.keys() - ignored:
                assert flags[flag] == expected[flag]


@pytest.mark.parametrize("method", ["imp_swa", "sms_swa"])
def test_an_abbreviation_keeps_its_average_beside_other_options_and_refuses_another(method):
    of = plan([method], **{"retrain.sam": "sam", "retrain.distill": 0.5})
    for flags in retrained(of).values():
        assert {"sam", "distill", "swa_start"} <= flags.keys()
    with pytest.raises(UserError, match=rf"retrain.average is ema, but {method} .* to none"):
        plan([method], **{"retrain.average": "ema"})
    varied = {"retrain.vary": "average", "retrain.values": ["ema"]}
    with pytest.raises(UserError, match=rf"retrain.vary is average, but {method} .* to seed"):
        plan([method], **varied)


@pytest.mark.parametrize(
    ("vary", "values", "more", "flags"),
    [
        ("sam", ["sam", "s2sam"], {}, [{}, {"sam": "sam"}, {"sam": "s2sam"}]),
        (
            "rho",
            [0.1, 0.2],
            {"retrain.sam": "sam"},
            [{"sam": "sam"}, {"sam": "sam", "rho": 0.1}, {"sam": "sam", "rho": 0.2}],
        ),
        ("average", ["ema", "swa"], {}, [{}, {"ema_decay": 0.99}, {"swa_start": 0.0}]),
        ("distill", [0.5, 1], {}, [{}, {"distill": 0.5}, {"distill": 1}]),
    ],
    ids=["sam", "rho", "average", "distill"],
)
def test_candidates_of_one_mask_with_other_options_are_one_soup(vary, values, more, flags):
    changes = {"retrain.vary": vary, "retrain.values": values, "m": 3, **more}
    of = plan(["sms"], **changes)
    for phase, lineage in ((1, ""), (2, "sms_uniform-")):
        found = [of.nodes[f"s0-{lineage}p{phase}-c{j}"] for j in range(3)]
        assert [
            {flag: value for flag, value in node.arguments.items() if flag in OPTIONS}
            for node in found
        ] == flags
        assert len({node.arguments["seed"] for node in found}) == 1
        assert len({node.arguments["parent"] for node in found}) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"retrain__average": "mean"}, ["retrain.average", "'mean'", "'swa' or 'ema'"]),
        ({"retrain__sam": "on"}, ["retrain.sam", "'on'", "'sam' or 's2sam'"]),
        ({"retrain__rho": 0}, ["retrain.rho is 0", "greater than 0"]),
        ({"retrain__distill": 1.5}, ["retrain.distill is 1.5", "in [0, 1]"]),
        ({"retrain__temperature": -1.0}, ["retrain.temperature", "greater than 0"]),
        ({"ema__decay": 1.0}, ["ema.decay is 1.0", "in [0, 1)"]),
        ({"ema__window": 0}, ["ema.window is 0", "in (0, 1]"]),
        ({"retrain__vary": "rho"}, ["retrain.sam is none", "set retrain.sam to sam or s2sam"]),
        (
            {"retrain__vary": "sam", "retrain__values": ["sam", "asam"]},
            ["retrain.values", "'asam'", "none, sam, s2sam"],
        ),
        (
            {"retrain__vary": "distill", "retrain__values": [0.5, 2.0]},
            ["retrain.values", "2.0", "in [0, 1]"],
        ),
        (
            {"retrain__vary": "weight_decay", "retrain__values": ["ema", "swa"]},
            ["retrain.values", "'ema'", "numbers"],
        ),
        (
            {"retrain__vary": "average", "retrain__values": ["ema"]},
            ["1 values besides the recipe's average none", "m = 3 needs 2"],
        ),
        (
            {"recipe": "cityscapes_pspnet", "retrain__distill": 0.5},
            ["retrain.distill is 0.5", "the task is segmentation", "set it to 0"],
        ),
        (
            {"recipe": "multi30k_t5small", "retrain__vary": "distill"},
            ["retrain.vary is distill", "the task is translation", "set it to seed"],
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_in_a_sentence(tmp_path, changes, words):
    with pytest.raises(UserError) as error:
        load(edited(tmp_path, **changes))
    sentence = str(error.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence


def test_the_options_are_listed_and_named_on_the_page():
    listed = choices()
    assert {*listed["retrain.average"], "none"} == {"none", "swa", "ema"}
    assert {*listed["retrain.sam"], "none"} == PASSES.keys()
    values = {"retrain.average": "ema", "retrain.sam": "sam", "retrain.distill": 0.5}
    params = load(ROOT / "params.yaml")
    assert _options(params) == ""
    text = _options(params.with_values(values))
    assert text.startswith(", averaged by EMA, SAM (rho 0.05), distilled from the dense network")


def test_params_say_that_every_option_is_off():
    retrain = yaml.safe_load((ROOT / "params.yaml").read_text())["retrain"]
    assert (retrain["average"], retrain["sam"], retrain["distill"]) == ("none", "none", 0)
