"""The library: the stages' algorithms on any network, and masks that hold under any optimiser."""

import argparse
import copy
import gc
import json
import os
import subprocess
import sys
import weakref
from itertools import chain

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations
from torch.optim.optimizer import register_optimizer_step_post_hook

from pipeline import api
from pipeline.averaging import weighted_sum
from pipeline.errors import UserError
from pipeline.models.build import build
from pipeline.plan.dependencies import closure
from pipeline.prune.rules import COSTED
from pipeline.prune.rules import names as rule_names
from pipeline.schedules.retrain_lr import SCHEDULES, allr_peak, learning_rates
from pipeline.soup import uniform
from pipeline.stagekit.pruning_flags import pruned
from pipeline.storage.checkpoint import Checkpoint
from pipeline.storage.checkpoint import load as load_checkpoint
from pipeline.train import batchnorm
from pipeline.train.batches import Batches
from pipeline.train.hold import HELD, Hold
from pipeline.train.loop import Settings, train
from pipeline.train.normalise import normaliser
from tests.fake_card import CARD, card, misplaced
from tests.project import ROOT
from tests.test_loop import CPU, SETTINGS, dataset, random_masks, resnet, same_bits, small

ELEMENTWISE = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05),
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, 0.05, 0.9, nesterov=True, weight_decay=0.01),
    "maximize": lambda p: torch.optim.SGD(p, 0.001, 0.9, maximize=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    "fused adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, fused=True),
    "nadam": lambda p: torch.optim.NAdam(p, 0.01, weight_decay=0.01),
    "radam": lambda p: torch.optim.RAdam(p, 0.01, weight_decay=0.01),
    "adamax": lambda p: torch.optim.Adamax(p, 0.01, weight_decay=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01, initial_accumulator_value=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, weight_decay=0.01),
    "rprop": lambda p: torch.optim.Rprop(p, 0.01),
    "asgd": lambda p: torch.optim.ASGD(p, 0.01, weight_decay=0.01),
    "adafactor": lambda p: torch.optim.Adafactor(p, 0.01),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.01, max_iter=2),
}
OPTIMISERS = ELEMENTWISE | {
    "muon": lambda p: torch.optim.Muon([each for each in p if each.ndim == 2], 0.01),
}


def dense(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3)
    )


def matrices(seed: int = 0) -> nn.Module:
    """Return a network of which an optimiser of matrices trains nearly all."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))


def batch(count: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 8, 8, generator=generator)
    return images, torch.randint(3, (count,), generator=generator)


def take(
    model: nn.Module, optimiser: torch.optim.Optimizer, seed: int = 0, device: torch.device = CPU
) -> None:
    """Take one step on a batch."""
    images, labels = (tensor.to(device) for tensor in batch(seed=seed))

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        return loss

    optimiser.step(closure)


def pruned_entries(model: nn.Module) -> Tensor:
    """Return all weights that the model's masks prune."""
    named = dict(model.named_parameters(remove_duplicate=False))
    return torch.cat([named[name][~mask].detach() for name, mask in api.masks(model).items()])


def positive_zeros(values: Tensor) -> bool:
    return len(values) > 0 and not values.any() and not values.signbit().any()


# ---- pruning


@pytest.mark.parametrize("network", [resnet, matrices])
@pytest.mark.parametrize("allocation", sorted({*rule_names("allocations")} - {*COSTED}))
@pytest.mark.parametrize("criterion", rule_names("criteria"))
def test_pruning_is_that_of_the_stage(network, criterion, allocation):
    model, flags = network(), argparse.Namespace(
        sparsity=0.8, structure="weights", criterion=criterion, allocation=allocation, seed=3
    )  # fmt: skip
    expected, metrics = pruned(Checkpoint(network().state_dict(), {}, {}), network(), flags)
    own = api.prune(model, 0.8, criterion=criterion, allocation=allocation, seed=3)
    assert own == metrics
    assert own["sparsity"] == pytest.approx(0.8, abs=0.01) == api.sparsity(model)
    assert all(
        torch.equal(model.state_dict()[name], value) for name, value in expected.state.items()
    )
    assert all(torch.equal(api.masks(model)[name], mask) for name, mask in expected.masks.items())
    assert positive_zeros(pruned_entries(model))


def test_filters_are_pruned_as_in_the_stage_with_bias_and_batchnorm():
    model = resnet()
    flags = argparse.Namespace(
        sparsity=0.5, structure="filters", criterion="magnitude", allocation="global", seed=None
    )
    expected, metrics = pruned(Checkpoint(resnet().state_dict(), {}, {}), resnet(), flags)
    assert api.prune(model, 0.5, structure="filters") == metrics
    assert api.masks(model).keys() == expected.masks.keys()
    assert any(name.endswith("bias") for name in api.masks(model))
    assert positive_zeros(pruned_entries(model))


@pytest.mark.parametrize("network", [resnet, matrices])
def test_n_of_m_is_pruned_as_in_the_stage_further_and_held(network):
    flags = argparse.Namespace(
        sparsity=0.5, structure="2:4", criterion="magnitude", allocation="global", seed=None
    )
    model = network()
    expected, metrics = pruned(Checkpoint(network().state_dict(), {}, {}), network(), flags)
    assert api.prune(model, 0.5, structure="2:4") == metrics
    first = api.masks(model)
    assert all(torch.equal(first[name], mask) for name, mask in expected.masks.items())
    api.hold(model)
    take(model, torch.optim.SGD(model.parameters(), 0.1))
    dense_layers = api.prune(model, 0.75, structure="1:4")["dense_layers"]
    take(model, torch.optim.SGD(model.parameters(), 0.1))
    assert positive_zeros(pruned_entries(model))
    patterned = api.masks(model).keys() - set(dense_layers)
    assert len(patterned) >= 2
    for name in patterned:
        kept = model.get_parameter(name).detach() != 0
        groups = kept.flatten(2).movedim(1, -1) if kept.ndim > 2 else kept
        assert set(groups.reshape(-1, 4).sum(1).tolist()) == {1}
        assert not (api.masks(model)[name] & ~first[name]).any()


@pytest.mark.parametrize("allocation", ["global", "random"])
def test_a_later_pruning_keeps_the_masks_of_an_earlier_one(allocation):
    model = dense()
    api.prune(model, 0.5, allocation=allocation, seed=1)
    first = api.masks(model)
    with torch.no_grad():
        for name, mask in first.items():  # the smallest are now among the kept
            model.get_parameter(name)[mask] *= 1e-6
    metrics = api.prune(model, 0.8, allocation=allocation, seed=2)
    assert metrics["sparsity"] == pytest.approx(0.8, abs=0.01)
    assert metrics["pruned_fraction"] == pytest.approx(0.6, abs=0.01)
    assert not any((mask & ~first[name]).any() for name, mask in api.masks(model).items())
    with pytest.raises(UserError, match=r"already has 0\.8"):
        api.prune(model, 0.7)


def test_weights_after_filters_nest_and_filters_after_weights_are_refused():
    model = dense()
    api.prune(model, 0.5, structure="filters")
    filters = api.masks(model)
    api.prune(model, 0.9)
    assert not any((api.masks(model)[name] & ~mask).any() for name, mask in filters.items())
    before = copy.deepcopy(model)
    with pytest.raises(UserError, match="prune filters first"):
        api.prune(model, 0.9, structure="filters")
    assert same_bits(model, before)


RULES = """
def scores(weights):
    return {name: -w.detach().abs() + w.abs().max().detach() for name, w in weights.items()}

def largest(weights):
    return scores(weights)

def masks(scores, sparsity, alive):
    return {name: mask & ~first(mask, sparsity) for name, mask in alive.items()}

def first(mask, part):
    return (mask.new_ones(mask.numel()).cumsum(0) <= part * mask.numel()).view(mask.shape)
"""


def test_rules_of_a_file_are_named_by_its_path(tmp_path, monkeypatch):
    """A relative path begins at the working directory."""
    (tmp_path / "mine.py").write_text(RULES)
    monkeypatch.chdir(tmp_path)
    results = []
    for criterion in ("mine.py", "mine.py:largest", str(tmp_path / "mine.py:scores")):
        model = dense()
        largest = model[4].weight.detach().abs().argmax()
        api.prune(model, 0.5, criterion=criterion)
        assert not api.masks(model)["4.weight"].flatten()[largest]
        results.append(model)
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])
    api.prune(model := dense(), 0.5, allocation="mine.py")
    assert api.masks(model)["4.weight"].flatten().tolist() == [False] * 324 + [True] * 324
    with pytest.raises(UserError, match=r"mine\.py has no none: name one"):
        api.prune(dense(), 0.5, criterion="mine.py:none")


def test_a_weight_that_two_layers_share_is_pruned_once():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    model[2].weight = model[0].weight
    assert api.prune(model, 0.5)["prunable"] == 64
    assert api.sparsity(model) == 0.5
    api.hold(model)
    optimiser = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    for _ in range(3):
        optimiser.zero_grad()
        model(torch.randn(4, 8)).square().sum().backward()
        optimiser.step()
    assert api.sparsity(model) == 0.5
    assert positive_zeros(pruned_entries(model))


# ---- holding


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_gradient_hooks_alone_keep_pruned_weights_at_zero(name, monkeypatch):
    """Under every optimiser whose update of a weight depends on that weight only."""
    monkeypatch.setattr(Hold, "after_step", lambda *_: None)
    model = dense()
    api.prune(model, 0.8)
    api.hold(model)
    before, optimiser = copy.deepcopy(model), OPTIMISERS[name](model.parameters())
    for step in range(4):
        take(model, optimiser, step)
        assert positive_zeros(pruned_entries(model))
        for weight, mask in api.masks(model).items():
            assert not model.get_parameter(weight).grad[~mask].any()
    assert not same_bits(model, before)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_optimiser_with_state_from_before_the_pruning_is_held(name):
    model = matrices()
    optimiser = OPTIMISERS[name](model.parameters())
    for step in range(3):
        take(model, optimiser, step)
    api.prune(model, 0.8)
    api.hold(model)
    before = copy.deepcopy(model)
    for step in range(3):
        take(model, optimiser, step)
        assert positive_zeros(pruned_entries(model))
    assert not same_bits(model, before)


def test_momentum_from_before_the_pruning_reaches_no_kept_weight():
    """The kept weights have the bits of an optimiser whose momentum was masked too."""
    results = []
    for mask_momentum in (False, True):
        model = dense()
        optimiser = torch.optim.SGD(model.parameters(), 0.05, 0.9, nesterov=True, weight_decay=0.01)
        for step in range(3):
            take(model, optimiser, step)
        api.prune(model, 0.8)
        api.hold(model)
        for name, mask in api.masks(model).items():
            buffer = optimiser.state[model.get_parameter(name)]["momentum_buffer"]
            assert buffer[~mask].any()
            if mask_momentum:
                buffer *= mask
        for step in range(3):
            take(model, optimiser, step)
        results.append(model)
    assert same_bits(*results)


def test_a_pruning_in_the_middle_of_training_is_held_at_once():
    model = dense()
    optimiser = torch.optim.AdamW(model.parameters(), 0.01)
    api.prune(model, 0.3)
    api.hold(model)
    for sparsity in (0.5, 0.7, 0.9):
        take(model, optimiser)
        api.prune(model, sparsity)
        take(model, optimiser)
        assert api.sparsity(model) == pytest.approx(sparsity, abs=0.01)
        assert positive_zeros(pruned_entries(model))


@pytest.mark.parametrize(
    "settings",
    [SETTINGS, Settings(16, 0.0), Settings(16, 5e-4, clip_norm=0.5)],
    ids=["nesterov", "plain", "clipped"],
)
@pytest.mark.parametrize("network", [resnet, small])
def test_plain_sgd_with_held_masks_ends_in_the_bits_of_the_loop(network, settings):
    trace, masks = [0.1 - 0.005 * step for step in range(20)], random_masks(network())
    rates = learning_rates("LLR", 10, trace)
    loop, model = network(), network()
    train(loop, dataset(), settings, rates, seed=7, masks=masks)

    model.to(memory_format=torch.channels_last).train()
    api.hold(model, masks)
    decay = settings.weight_decay
    optimiser = torch.optim.SGD(
        model.parameters(), 1.0, settings.momentum, weight_decay=decay, nesterov=decay > 0
    )
    scheduler = api.RetrainLR(optimiser, "LLR", steps=10, trace=trace)
    batches = Batches(dataset(), settings.batch_size, settings.augmentation, seed=7, device=CPU)
    steps = chain.from_iterable(batches.epoch() for _ in range(3))
    for _, (images, labels) in zip(rates, steps, strict=False):
        optimiser.zero_grad()
        cross_entropy(model(images), labels).backward()
        if settings.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimiser.step()
        scheduler.step()
    assert same_bits(model, loop)
    assert not same_bits(model, network())


def test_frozen_weights_are_held_once_they_train():
    model = dense()
    model[0].weight.requires_grad_(False)
    api.prune(model, 0.8)
    api.hold(model)
    assert not model[0].weight.requires_grad
    model[0].weight.requires_grad_(True)
    optimiser, before = torch.optim.SGD(model.parameters(), 0.1, 0.9), model[0].weight.clone()
    take(model, optimiser)
    assert positive_zeros(optimiser.state[model[0].weight]["momentum_buffer"].abs()[before == 0])
    assert positive_zeros(pruned_entries(model))
    assert not torch.equal(model[0].weight, before)


def test_gradients_accumulate_and_autograd_grad_is_masked():
    model = dense()
    api.prune(model, 0.8)
    api.hold(model)
    mask, weight = api.masks(model)["4.weight"], model[4].weight
    images, labels = batch()
    for _ in range(2):
        cross_entropy(model(images), labels).backward()
    assert weight.grad[mask].any()
    assert not weight.grad[~mask].any()
    (gradient,) = torch.autograd.grad(cross_entropy(model(images), labels), [weight])
    assert not gradient[~mask].any()


def test_an_infinite_gradient_of_a_pruned_weight_is_zero():
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, 0.1]])
    api.prune(model, 0.5)
    api.hold(model)
    model(torch.tensor([[1.0, float("inf")]])).nan_to_num().sum().backward()
    (model.weight * torch.tensor([[1.0, float("inf")]])).nan_to_num().sum().backward()
    assert model.weight.grad[0, 1] == 0


def test_copies_carry_masks_and_are_held_for_themselves():
    model = dense()
    api.prune(model, 0.8)
    api.hold(model)
    other = copy.deepcopy(model)
    assert api.masks(other).keys() == api.masks(model).keys()
    assert "_pruning_masks" not in other.state_dict()
    take(other, torch.optim.SGD(other.parameters(), 0.1))
    assert api.sparsity(other) < 0.1
    api.hold(other)  # zeroes what has moved
    take(other, torch.optim.SGD(other.parameters(), 0.1))
    assert positive_zeros(pruned_entries(other))


def test_released_weights_train_again():
    model = dense()
    api.prune(model, 0.8)
    api.hold(model)
    api.release(model)
    api.release(model)
    take(model, torch.optim.SGD(model.parameters(), 0.1))
    assert api.sparsity(model) < 0.1
    assert not model[0].weight._backward_hooks


def test_a_held_network_is_not_kept_alive():
    gc.collect()
    held = len(HELD)
    model = dense()
    api.prune(model, 0.8)
    api.hold(model)
    api.hold(model)
    assert len(HELD) == held + 1
    dead = weakref.ref(model)
    del model
    gc.collect()
    assert dead() is None
    assert len(HELD) == held


def test_a_held_network_may_be_collected_during_a_step():
    """The cycle collector may run at any time, also while PyTorch calls the hooks of a step."""
    gc.collect()
    model, other = dense(), dense()
    for network in (model, other):
        api.prune(network, 0.8)
        api.hold(network)
    counts = [len(HELD)]

    def collect(*_: object) -> None:
        gc.collect()
        counts.append(len(HELD))

    hooks = [register_optimizer_step_post_hook(collect) for _ in range(2)]
    gc.disable()
    try:
        del network, other
        take(model, torch.optim.SGD(model.parameters(), 0.1))
    finally:
        gc.enable()
        for hook in hooks:
            hook.remove()
    assert [count - counts[0] for count in counts] == [0, -1, -1]
    assert not pruned_entries(model).any()


def test_other_networks_train_as_ever():
    held, other, alone = dense(), dense(1), dense(1)
    api.prune(held, 0.8)
    api.hold(held)
    for model in (other, alone):
        take(model, torch.optim.SGD(model.parameters(), 0.1, 0.9))
    assert same_bits(other, alone)


def test_a_parameter_that_was_replaced_after_hold_is_found_at_the_first_step():
    model = dense()
    api.prune(model, 0.8)
    api.hold(model)
    model[4].weight = nn.Parameter(model[4].weight.detach().clone())
    take(other := dense(), torch.optim.SGD(other.parameters(), 0.1))
    with pytest.raises(UserError, match=r"'4.weight' was replaced after hold"):
        take(model, torch.optim.SGD(model.parameters(), 0.1))


def test_masks_follow_a_network_to_a_gpu():
    """No operation of hooks or re-estimation has operands on two devices."""
    masks = random_masks(dense())
    with card():
        model = api.hold(dense(), masks)
        model.to(CARD)
        (hook,) = model[0].weight._backward_hooks.values()
        assert hook(torch.ones_like(model[0].weight)).device == CARD
        take(model, torch.optim.SGD(model.parameters(), 0.1), device=CARD)
        assert {mask.device for mask in api.masks(model).values()} == {CPU}
        api.hold(model, masks)
        api.reestimate_batchnorm(model, [batch()])
        assert misplaced(model) == []


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["nesterov", "fused adamw", "muon"])
def test_a_network_on_a_gpu_is_pruned_held_and_averaged_there(name):
    parent = matrices()
    api.prune(parent, 0.5)
    models = [api.hold(copy.deepcopy(parent)).cuda() for _ in range(2)]  # moved after hold
    for seed, model in enumerate(models):
        optimiser = OPTIMISERS[name](model.parameters())
        take(model, optimiser, seed, CARD)
        api.prune(model, 0.8)
        take(model, optimiser, seed, CARD)
        assert positive_zeros(pruned_entries(model))
    alike = api.hold(copy.deepcopy(models[0]))
    take(alike, OPTIMISERS[name](alike.parameters()), 5, CARD)
    soup = api.average([models[0], alike])
    assert {value.device for value in soup.state_dict().values()} == {CARD}
    assert positive_zeros(pruned_entries(soup))
    with_norm = dense().cuda()
    api.reestimate_batchnorm(with_norm, [batch(), batch(seed=1)])
    assert with_norm[1].running_mean.any()


# ---- averages


def candidates(count: int = 3) -> list[nn.Module]:
    parent = dense()
    api.prune(parent, 0.8)
    models = [copy.deepcopy(parent) for _ in range(count)]
    for seed, model in enumerate(models):
        api.hold(model)
        take(model, torch.optim.SGD(model.parameters(), 0.1), seed)
    return models


def test_the_average_is_that_of_the_stage_and_has_the_mask():
    models = candidates()
    before = copy.deepcopy(models)
    soup = api.average(models)
    stage = uniform.merge([Checkpoint(m.state_dict(), api.masks(m), {}) for m in models])
    for name, value in soup.state_dict().items():
        assert torch.equal(value, stage.checkpoint.state[name])
    assert positive_zeros(pruned_entries(soup))
    assert api.sparsity(soup) == api.sparsity(models[0])
    assert all(same_bits(*pair) for pair in zip(models, before, strict=True))
    api.hold(soup)
    take(soup, torch.optim.SGD(soup.parameters(), 0.1))
    assert positive_zeros(pruned_entries(soup))


def test_state_dicts_are_averaged_alike():
    models = candidates()
    states = [model.state_dict() for model in models]
    for weights in (None, [0.5, 0.2, 0.3]):
        soup = api.average(iter(models), weights and iter(weights)).state_dict()
        state = api.average(states, weights)
        assert all(torch.equal(state[name], value) for name, value in soup.items())
    weighted = weighted_sum(states, [0.5, 0.2, 0.3])
    assert all(torch.equal(state[name], value) for name, value in weighted.items())


# ---- BatchNorm


def test_statistics_are_those_of_the_stage():
    data, model, own = dataset(70), resnet(), resnet()
    images, normalise = data.train.images, normaliser(data.mean, data.std, CPU)
    batchnorm.reestimate(model, images, data.mean, data.std, batch_size=20)
    batches = [normalise(images[rows]) for rows in batchnorm._parts(images, 20)]
    assert len({len(each) for each in batches}) == 2
    api.reestimate_batchnorm(own, iter(batches))
    assert same_bits(own, model)
    assert not same_bits(own, resnet())


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = dense()

    def forward(self, pixels: Tensor, **_: object) -> Tensor:
        return self.network(pixels)


def test_batches_come_in_the_forms_of_loaders():
    images = batch(10)[0]
    expected = dense()
    api.reestimate_batchnorm(expected, [images[:6], images[6:]])
    for wrap in (
        lambda x: (x, None),
        lambda x: [x, torch.zeros(len(x)), "name"],
    ):
        model = dense()
        api.reestimate_batchnorm(model, [wrap(images[:6]), wrap(images[6:])])
        assert same_bits(model, expected)
    for wrap in (
        lambda x: {"more": 3, "labels": None, "pixels": x},
        lambda x: ({"pixels": x, "labels": torch.zeros(len(x))}, torch.zeros(len(x))),
    ):
        named = Named()
        api.reestimate_batchnorm(named, [wrap(images[:6]), wrap(images[6:])])
        assert same_bits(named.network, expected)


def test_a_failed_reestimation_leaves_the_network_as_it_was():
    def broken():
        yield batch()[0]
        raise OSError("the disk is gone")

    model = dense()
    take(model, torch.optim.SGD(model.parameters(), 0.1))
    model[1].eval()
    before = copy.deepcopy(model)
    for batches, error in [
        (broken(), OSError),
        ([], UserError),
        ([batch()[0], "text"], UserError),
        ([batch()[0], {"x": 3}], UserError),
        ([()], UserError),
        ([batch(), batch(0)], UserError),
        ([batch(), batch()[0] * float("inf")], UserError),
        ([batch(), torch.ones(2, 3, 8, 8)], UserError),
    ]:
        with pytest.raises(error):
            api.reestimate_batchnorm(model, batches)
        assert same_bits(model, before)
        assert [each.training for each in model.modules()] == [True, True, False, True, True, True]
        assert model[1].momentum == 0.1


# ---- schedules


TRACE = [0.1 * (1 - step / 40) for step in range(40)]
METRICS = {"norm_drop": 0.3, "pruned_fraction": 0.6}


def rates_of(scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[-1]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def two_groups() -> torch.optim.Optimizer:
    weights = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    return torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "lr": 7.0}], lr=1.0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_scheduler_gives_the_rates_of_the_stage(schedule):
    peak = allr_peak(0.1, 0.3, 0.6, 20, 40) if schedule == "ALLR" else None
    expected = learning_rates(schedule, 20, TRACE, peak=peak)
    scheduler = api.RetrainLR(two_groups(), schedule, steps=20, trace=TRACE, pruning=METRICS)
    assert rates_of(scheduler, 20) == expected
    assert scheduler.get_last_lr() == [expected[-1]] * 2  # the last rate stays
    with pytest.raises(UserError, match="20 steps and is asked for one more"):
        scheduler.step()


def test_a_peak_is_enough_for_the_linear_schedules():
    expected = learning_rates("LLR", 20, TRACE)
    assert rates_of(api.RetrainLR(two_groups(), "LLR", steps=20, trace=0.1), 20) == expected
    scheduler = api.RetrainLR(two_groups(), steps=20, trace=0.1, pruning=METRICS, pretrain_steps=40)
    peak = allr_peak(0.1, 0.3, 0.6, 20, 40)
    assert rates_of(scheduler, 20) == learning_rates("ALLR", 20, TRACE, peak=peak)
    scheduler = api.RetrainLR(two_groups(), "CLR", steps=20, trace=TRACE, peak=0.05)
    assert max(rates_of(scheduler, 20)) == 0.05


def test_the_state_of_the_scheduler_continues_it():
    scheduler = api.RetrainLR(two_groups(), "LLR", steps=20, trace=0.1)
    first = rates_of(scheduler, 12)
    state = json.loads(json.dumps(scheduler.state_dict()))  # so plain that any file takes it
    other = api.RetrainLR(two_groups(), "FT", steps=3, trace=[0.5])
    other.optimizer.load_state_dict(scheduler.optimizer.state_dict())
    other.load_state_dict(state)
    assert first + rates_of(other, 8) == learning_rates("LLR", 20, [0.1])


# ---- files


def test_a_saved_network_loads_with_its_masks_at_a_fraction_of_the_size(tmp_path):
    model = build("resnet8", 3, 1)
    api.prune(model, 0.95)
    api.save(model, tmp_path / "soup.safetensors")
    other = build("resnet8", 3, 1)
    api.load(other, str(tmp_path / "soup.safetensors"))
    assert same_bits(other, model)
    assert all(torch.equal(api.masks(other)[n], mask) for n, mask in api.masks(model).items())
    assert (tmp_path / "soup.safetensors").stat().st_size < 0.15 * sum(
        value.nbytes for value in model.state_dict().values()
    )
    assert load_checkpoint(tmp_path / "soup.safetensors").masks  # a stage reads it


def test_what_is_loaded_into_a_held_network_is_held(tmp_path):
    model, other = dense(), dense(1)
    api.prune(model, 0.9)
    api.save(model, tmp_path / "file")
    api.prune(other, 0.5)
    api.hold(other)
    api.load(other, tmp_path / "file")
    take(other, torch.optim.SGD(other.parameters(), 0.1))
    assert api.sparsity(other) == api.sparsity(model)


# ---- refusals


def pruned_network(sparsity: float = 0.5, **options: object) -> nn.Module:
    model = dense()
    api.prune(model, sparsity, **options)
    return model


def unheld() -> nn.Module:
    model = pruned_network()
    take(model, torch.optim.SGD(model.parameters(), 0.1))
    return model


def diverged() -> nn.Module:
    model = dense()
    model[4].weight.data[0, 0] = float("nan")
    return model


def with_weight_norm() -> nn.Module:
    return nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(64, 3)))


def with_head(head: nn.Module) -> nn.Module:
    """Return a pruned network whose head was replaced afterwards."""
    model = pruned_network()
    model[4] = head
    return model


def reloaded() -> nn.Module:
    """Return a held network that has loaded the state of a dense one."""
    model = api.hold(pruned_network())
    model.load_state_dict(dense(1).state_dict())
    return model


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(6, 3), nn.LazyBatchNorm2d(), nn.Flatten())


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return dense()


class Extra(nn.Linear):
    """A layer whose state dict holds more than tensors."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}


def prune_by_latency(example: object) -> None:
    api.prune(dense(), 0.5, allocation="latency", example=example)


def reestimate(*batches: object) -> None:
    api.reestimate_batchnorm(dense(), batches)


def state(**changes: Tensor) -> dict[str, Tensor]:
    return {"weight": torch.tensor([[1.0, 0.0], [0.5, 2.0]]), "bias": torch.zeros(2)} | changes


def schedule(*words: object, **options: object) -> None:
    api.RetrainLR(two_groups(), *words, **options)


REFUSALS = {
    "sparsity 1": (lambda: api.prune(dense(), 1.0), r"sparsity is 1\.0: it must be in \[0, 1\)"),
    "sparsity -1": (lambda: api.prune(dense(), -0.5), r"must be in \[0, 1\)"),
    "too much": (lambda: api.prune(dense(), 0.9999), "leaves none of 702 weights: lower it"),
    "criterion": (lambda: api.prune(dense(), 0.5, criterion="x"), "criterion is 'x': use one of"),
    "allocation": (lambda: api.prune(dense(), 0.5, allocation="x"), "'x': use one of erk, global"),
    "structure": (lambda: api.prune(dense(), 0.5, structure="x"), "'x': use 'weights' or 'filt"),
    "N:M": (lambda: api.prune(dense(), 0.9, structure="2:4"), "is 0.9, but .* 2:4: set it to 0.5"),
    "seed": (lambda: api.prune(dense(), 0.5, allocation="random"), "give it a seed"),
    "nothing": (lambda: api.prune(nn.BatchNorm2d(3), 0.5), "no convolution or linear layer"),
    "no filters": (lambda: api.prune(matrices(), 0.5, structure="filters"), "no convolution bef"),
    "nan": (lambda: api.prune(diverged(), 0.5), r"'4\.weight' holds NaN or infinity"),
    "weight norm": (lambda: api.prune(with_weight_norm(), 0.5), r"'1\.weight' has a parametrisa"),
    "unheld": (lambda: api.prune(unheld(), 0.8), "are not 0, as after training without hold"),
    "loaded": (lambda: api.prune(reloaded(), 0.8), "after load_state_dict of a dense state: hold"),
    "new head": (
        lambda: api.prune(with_head(nn.Linear(216, 5)), 0.8),
        r"mask '4\.weight' of shape \[3, 216\] fits no parameter .* replaced or removed",
    ),
    "no head": (lambda: api.average([with_head(nn.Identity())]), r"mask '4\.weight' of .* fits no"),
    "like head": (lambda: api.average([with_head(nn.Linear(216, 3))]), r"'4\.weight' are not 0"),
    "lazy": (lambda: api.prune(lazy(), 0.5), r"'0\.weight' of the network has no values yet"),
    "meta": (lambda: api.prune(on_meta(), 0.5), r"'0\.weight' .* on the meta device: load its"),
    "lazy BatchNorm": (lambda: api.reestimate_batchnorm(lazy(), [batch()]), "has no values yet"),
    "meta candidates": (lambda: api.average([on_meta()]), "has no values yet"),
    "lazy sparsity": (lambda: api.sparsity(lazy()), "has no values yet"),
    "computed": (lambda: api.sparsity(with_weight_norm()), r"'1\.weight' has a parametrisation"),
    "extra state": (lambda: api.prune(Extra(4, 4), 0.5), "'_extra_state' of the state dict is a d"),
    "no network": (lambda: api.prune(dense().state_dict(), 0.5), "the network is a OrderedDict"),
    "sparsity text": (lambda: api.prune(dense(), "0.5"), "sparsity is '0.5': it must be a number"),
    "example text": (lambda: prune_by_latency("x"), "the example, .*, is no batch: give a tensor"),
    "example scalar": (lambda: prune_by_latency(torch.tensor(1.0)), "the example, .*, is no batch"),
    "no example in it": (lambda: prune_by_latency(torch.ones(0, 1, 8, 8)), "is no batch: give"),
    "example shape": (lambda: prune_by_latency(torch.ones(1, 5)), r"an example of shape \[1, 5\]"),
    "filters' criterion": (
        lambda: api.prune(dense(), 0.5, structure="filters", criterion="own.py"),
        "^structure is filters, .* but criterion is .*own.py.* and allocation is global: set them",
    ),
    "filters' allocation": (
        lambda: api.prune(dense(), 0.5, structure="filters", allocation="erk"), "allocation is erk"
    ),
    "N:M's allocation": (
        lambda: api.prune(dense(), 0.5, structure="2:4", allocation="erk"),
        "^structure is 2:4, .* but allocation is erk: set it to global",
    ),
    "no such rule": (lambda: api.prune(dense(), 0.5, criterion="x.py"), r"x\.py does not exist"),
    "function": (lambda: api.prune(dense(), 0.5, criterion=torch.abs), "is no text: name one, or"),
    "float mask": (
        lambda: api.hold(dense(), {"4.weight": torch.ones(3, 216)}), "is a torch.float32: make it a"
    ),
    "list mask": (lambda: api.hold(dense(), {"4.bias": [True] * 3}), "'4.bias' is a list: make it"),
    "no masks": (lambda: api.hold(dense()), "no masks to hold: prune it first"),
    "shape": (
        lambda: api.hold(dense(), {"4.weight": torch.ones(3, 2) > 0}), r"shape \[3, 2\] fits no par"
    ),
    "name": (lambda: api.hold(dense(), {"x": torch.ones(3) > 0}), "'x' of shape"),
    "no models": (lambda: api.average([]), "^there is no model to average: pass at least one cand"),
    "no model left": (lambda: api.average(iter([])), "^there is no model to average"),
    "paths": (lambda: api.average(["a.pt", "b.pt"]), "candidate 0 is a str: pass a list of netw"),
    "one state dict": (lambda: api.average(state()), "candidate 0 is a str: pass a list of"),
    "no tensor": (lambda: api.average([state(), state(epoch=3)]), "'epoch' .* is a int: leave"),
    "diverged candidate": (
        lambda: api.average([dense(), diverged()]), r"^candidate 1 holds NaN or infinity in '4\."
    ),
    "infinite state": (
        lambda: api.average([state(bias=torch.tensor([1.0, float("inf")]))]), "infinity in 'bias'"
    ),
    "other masks": (
        lambda: api.average([pruned_network(), pruned_network(0.6)]), "in the mask '.*weight'"
    ),
    "unheld candidate": (lambda: api.average([pruned_network(), unheld()]), "not 0, as .*: hold"),
    "other keys": (lambda: api.average([dense(), matrices()]), "differ in the tensor '.*weight'"),
    "other zeros": (
        lambda: api.average([state(), state(weight=torch.ones(2, 2))]), "in the mask 'weight'"
    ),
    "missing key": (lambda: api.average([state(), {"weight": torch.ones(2, 2)}]), "tensor 'bias'"),
    "mixed": (lambda: api.average([dense(), dense().state_dict()]), "networks and state dicts"),
    "too few weights": (lambda: api.average([state(), state()], [1.0]), "one number a model, with"),
    "weights' sum": (lambda: api.average([state(), state()], [1.0, 1.0]), r"weights is \[1\.0, 1"),
    "weights NaN": (lambda: api.average([state()], [float("nan")]), "with a sum of 1"),
    "weights' infinities": (
        lambda: api.average([state(), state()], [float("inf"), -float("inf")]), "with a sum of 1"
    ),
    "a number": (lambda: api.average([state()], 1.0), r"weights is 1\.0: it must have one number"),
    "words": (lambda: api.average([state()], ["x"]), "weights is .*: it must have one number"),
    "no batch": (lambda: api.reestimate_batchnorm(dense(), []), "without a batch: pass at least 1"),
    "text": (lambda: api.reestimate_batchnorm(dense(), ["x"]), "a batch is a str without a tensor"),
    "one example": (
        lambda: api.reestimate_batchnorm(
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), [torch.ones(1, 4)]
        ),
        "one example has no variance",
    ),
    "empty batch": (lambda: reestimate(batch(0)), "a batch has no example: leave it out"),
    "later empty batch": (lambda: reestimate(batch(), batch(0)), "a batch has no example"),
    "NaN batch": (
        lambda: reestimate(batch(), batch()[0] * float("nan")),
        "inputs of the BatchNorm '1' hold NaN or infinity",
    ),
    "channels": (
        lambda: reestimate(torch.ones(2, 3, 8, 8)),
        r"fails on a batch \(\[2, 3, 8, 8\] torch\.float32\) with RuntimeError: .*: pass batches",
    ),
    "dtype": (lambda: reestimate(batch()[0].double()), r"torch\.float64\) with RuntimeError: "),
    "keyword": (lambda: reestimate({"x": batch()[0]}), r"batch \(x \[16, .* TypeError: .*: p"),
    "schedule": (lambda: schedule("x", steps=1, trace=1.0), "schedule is 'x': use one of"),
    "steps": (lambda: schedule("LLR", steps=0, trace=1.0), "steps is 0, but must be an integer"),
    "no steps": (lambda: schedule("LLR", steps=None, trace=1.0), "steps is None, but must be an i"),
    "half a step": (lambda: schedule("LLR", steps=3.5, trace=1.0), "steps is 3.5, but must be an"),
    "endless": (lambda: schedule("LLR", steps=float("inf"), trace=1.0), "steps is inf, but must"),
    "no trace": (lambda: schedule("LLR", steps=1, trace=[]), "trace is"),
    "trace None": (lambda: schedule("LLR", steps=1, trace=None), "trace is None, but must be a ra"),
    "trace text": (lambda: schedule("FT", steps=1, trace="x"), "trace is x, but must be a rate or"),
    "negative": (lambda: schedule("LLR", steps=1, trace=-1.0), "trace is"),
    "a peak for CLR": (lambda: schedule("CLR", steps=1, trace=1.0), "a list of all rates with CLR"),
    "ALLR alone": (lambda: schedule(steps=1, trace=[1.0]), "ALLR needs the metrics of prune"),
    "ALLR's peak": (lambda: schedule(steps=1, trace=1.0, pruning=METRICS), "pretrain_steps"),
    "no pretraining": (
        lambda: schedule(steps=1, trace=[1.0], pruning=METRICS, pretrain_steps=0),
        "pretrain_steps is 0, but must be an integer, at least 1",
    ),
    "no metrics": (
        lambda: schedule(steps=1, trace=[1.0], pruning={}), "pruning lacks .* pass the metrics that"
    ),
    "None metrics": (
        lambda: schedule(steps=1, trace=[1.0], pruning=METRICS | {"norm_drop": None}), "lacks the n"
    ),
    "peak 0": (lambda: schedule("LLR", steps=1, trace=[1.0], peak=0), "^peak is 0, but must be a"),
    "peak text": (lambda: schedule("LLR", steps=1, trace=[1.0], peak="x"), "^peak is x, but must"),
    "LRW": (
        lambda: schedule("LRW", steps=9, trace=[1.0]), "^steps is 9, but must be at most .* 1 with"
    ),
    "no file": (lambda: api.load(dense(), "none.safetensors"), "none.safetensors is missing: pass"),
    "a folder": (lambda: api.load(dense(), ROOT), "is missing: pass a file that save wrote"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_wrong_input_is_refused_in_one_sentence(case):
    call, words = REFUSALS[case]
    with pytest.raises(UserError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
    assert str(error.value).rstrip(".").count(". ") == 0


@pytest.mark.parametrize("place", ["folder", "file/below", "x" * 300, "nul\0", ""])
def test_a_network_is_not_saved_where_no_file_can_be(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written \(.*\): name another file"):
        api.save(pruned_network(), place)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "file", tmp_path / "folder"]


def test_a_damaged_file_changes_nothing(tmp_path):
    model = dense()
    before = copy.deepcopy(model)
    (tmp_path / "file").write_bytes(b"text")
    with pytest.raises(UserError, match=r"is truncated or not .* if a stage makes it, or save it"):
        api.load(model, tmp_path / "file")
    assert same_bits(model, before)
    api.save(model, tmp_path / "file")
    with pytest.raises(UserError, match="on the meta device"):
        api.load(on_meta(), tmp_path / "file")


def test_masks_come_back_from_the_zeros_of_a_state_dict():
    model, other = pruned_network(0.8), dense(1)
    other.load_state_dict(model.state_dict())
    assert api.masks(other) == {}
    named = other.named_parameters()
    api.hold(other, {name: weight != 0 for name, weight in named if weight.ndim > 1})
    assert all(torch.equal(api.masks(other)[n], mask) for n, mask in api.masks(model).items())
    take(other, torch.optim.SGD(other.parameters(), 0.1))
    assert positive_zeros(pruned_entries(other))


def test_a_held_network_that_loaded_a_dense_state_is_held_again(tmp_path):
    model = api.hold(reloaded())
    assert positive_zeros(pruned_entries(model))
    api.save(model, tmp_path / "file")


def test_a_file_is_not_loaded_into_a_wrapper(tmp_path):
    api.save(pruned_network(), tmp_path / "file")
    with pytest.raises(UserError, match="build its network, and pass it without a wrapper"):
        api.load(nn.DataParallel(dense()), tmp_path / "file")


def test_a_network_with_a_new_head_is_pruned_with_the_masks_that_are_left():
    model = with_head(nn.Linear(216, 5))
    before = copy.deepcopy(model)
    with pytest.raises(UserError, match="without those of layers"):
        api.prune(model, 0.8)
    assert same_bits(model, before)
    left = {name: mask for name, mask in api.masks(model).items() if name != "4.weight"}
    api.hold(model, left)
    api.prune(model, 0.8)
    take(model, torch.optim.SGD(model.parameters(), 0.1, 0.9))
    assert api.sparsity(model) == pytest.approx(0.8, abs=0.01)
    assert not (api.masks(model)["0.weight"] & ~left["0.weight"]).any()


def test_a_file_of_another_network_changes_nothing(tmp_path):
    api.save(pruned_network(), tmp_path / "file")
    other = small()
    other[4] = nn.Linear(216, 4)
    before = copy.deepcopy(other)
    with pytest.raises(UserError, match=r"another network, as '4\.bias' shows"):
        api.load(other, tmp_path / "file")
    assert same_bits(other, before)
    assert api.masks(other) == {}
    with pytest.raises(UserError, match=r"are not 0, as .*: hold"):
        api.save(unheld(), tmp_path / "file")


# ---- several processes


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def pruned_matrices() -> nn.Module:
    model = matrices()
    api.prune(model, 0.8)
    api.hold(model)
    return model


@pytest.mark.filterwarnings("ignore")  # FSDP would rather have a GPU
def test_networks_that_fsdp_shards_are_refused(group):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    def sharded(model: nn.Module) -> None:
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))

    model = matrices()
    sharded(model)
    for network in (model, FullyShardedDataParallel(matrices(), device_id=CPU)):
        for call in (
            lambda network=network: api.prune(network, 0.5),
            lambda network=network: api.hold(network, {"1.weight": torch.ones(8, 64)}),
        ):
            with pytest.raises(UserError, match="sharded, as by FSDP") as error:
                call()
            assert "\n" not in str(error.value)
    later = pruned_matrices()
    sharded(later)
    with pytest.raises(UserError, match="replaced after hold, as FSDP does"):
        take(later, torch.optim.SGD(later.parameters(), 0.1))


SCENARIOS = {
    "held before": (True, {}),
    "held after": (False, {}),
    "views": (True, {"gradient_as_bucket_view": True}),
    "unused": (False, {"find_unused_parameters": True, "gradient_as_bucket_view": True}),
}


def in_parallel(number: int, folder: str) -> None:
    """Train in each scenario as process ``number`` of two, on a half of each batch."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=number, world_size=2)
    Hold.after_step = lambda *_: None  # the gradient hooks alone, as they meet the reducer
    results = {}
    for name, (before, options) in SCENARIOS.items():
        model = matrices()
        api.prune(model, 0.8)
        if before:
            api.hold(model)
        parallel = DistributedDataParallel(model, **options)
        if not before:
            api.hold(model)
        images, labels = batch()
        results[name] = trained(model, parallel, images[number::2], labels[number::2])
    torch.save(results, f"{folder}/{number}.pt")
    dist.destroy_process_group()


def trained(model: nn.Module, network: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Train; return the model's weights, and what of gradients and momentum the masks prune."""
    optimiser = torch.optim.SGD(model.parameters(), 0.1, 0.9, nesterov=True, weight_decay=0.01)
    for _ in range(4):
        optimiser.zero_grad()
        cross_entropy(network(images), labels).backward()
        optimiser.step()
    masks = [(model.get_parameter(name), ~mask) for name, mask in api.masks(model).items()]
    gone = [weight.grad[pruned] for weight, pruned in masks]
    gone += [optimiser.state[weight]["momentum_buffer"][pruned] for weight, pruned in masks]
    flat = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    return [flat, torch.cat(gone), pruned_entries(model)]


@pytest.mark.slow
def test_masks_hold_after_gradients_are_reduced(tmp_path):
    """Two processes end with equal bits, as one does on the whole batch but for rounding."""
    torch.multiprocessing.spawn(in_parallel, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in range(2))
    alone = pruned_matrices()
    expected = trained(alone, alone, *batch())[0]
    for name in SCENARIOS:
        flat, gone, weights = first[name]
        assert torch.equal(flat, second[name][0])
        torch.testing.assert_close(flat, expected)
        assert not gone.any()
        assert positive_zeros(weights)


# ---- what is imported


def test_the_library_imports_torch_numpy_safetensors_and_nothing_else_of_the_pipeline():
    code = (
        "import sys, torch, numpy, safetensors.torch; before = set(sys.modules); "
        "from pipeline import api; print(*(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    new = {name.partition(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names
    assert new == {"pipeline"} | (new & {"torch", "numpy", "safetensors"})
    assert not {"dvc", "mlflow", "pydantic", "pandas", "PIL"} & new


def test_no_stage_depends_on_the_library():
    stages = [file.stem for file in (ROOT / "stages").glob("[!_]*.py")]
    assert len(stages) > 10
    for stage in stages:
        files = closure(f"stages.{stage}")
        assert not {"pipeline/api.py", "pipeline/train/hold.py"} & set(files)
