"""Pruning during training: each update rule against its equation in NumPy, step by step.

The problem is two linear layers, y = W2 (W1 x + b1) + b2, under the mean of |y - t|^2 / 2, whose
gradients are written out by hand below. Everything is in float64.
"""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.errors import UserError
from pipeline.rounding import exact, round_fraction
from pipeline.schedules.sparsity import alternation, ramp
from pipeline.sparsify._ranking import largest, magnitudes
from pipeline.sparsify.base import Sparsifier, SparsifyConfig
from pipeline.sparsify.build import build, names
from pipeline.train.loop import Hook, Settings, train
from pipeline.train.settings import Augmentation
from pipeline.train.state import TrainingState
from tests.test_loop import dataset, same_bits, small

Arrays = dict[str, np.ndarray]
RATES = [0.06, 0.06, 0.05, 0.05, 0.04, 0.04, 0.03, 0.03, 0.02, 0.02, 0.01, 0.01]
EPOCH = 3  # steps
WEIGHTS = ("0.weight", "1.weight")
DECAYS = pytest.mark.parametrize("decay", [0.0, 0.02], ids=["plain", "nesterov"])


# ---- the problem


def problem() -> tuple[Arrays, np.ndarray, np.ndarray]:
    """Return the first parameters (weights of both signs, up to 1.5), inputs and targets."""
    draw = np.random.default_rng(3)
    shapes = {"0.weight": (4, 3), "0.bias": (4,), "1.weight": (2, 4), "1.bias": (2,)}
    parameters = {name: draw.uniform(-1.5, 1.5, shape) for name, shape in shapes.items()}
    return parameters, draw.normal(size=(5, 3)), draw.normal(size=(5, 2))


def gradients(at: Arrays) -> Arrays:
    """Return the gradient of the mean of |y - t|^2 / 2 over the five examples."""
    _, x, t = problem()
    hidden = x @ at["0.weight"].T + at["0.bias"]
    error = (hidden @ at["1.weight"].T + at["1.bias"] - t) / len(x)
    back = error @ at["1.weight"]
    return {
        "0.weight": back.T @ x,
        "0.bias": back.sum(0),
        "1.weight": error.T @ hidden,
        "1.bias": error.sum(0),
    }


class Momentum:
    """SGD as the loop's optimiser has it: v = 0.9 v + g, Nesterov where there is decay."""

    def __init__(self, decay: float) -> None:
        self.decay, self.v = decay, {}

    def __call__(self, parameters: Arrays, grads: Arrays, rate: float) -> None:
        for name, w in parameters.items():
            g = grads[name] + self.decay * w
            self.v[name] = 0.9 * self.v.get(name, 0.0) + g
            parameters[name] = w - rate * (g + 0.9 * self.v[name] if self.decay else self.v[name])


def keep(scores: Arrays, sparsity: float) -> Arrays:
    """Return the masks of the largest of all scores, by a sort."""
    flat = np.concatenate([score.ravel() for score in scores.values()])
    mask = np.ones(flat.size, bool)
    mask[np.argsort(flat, kind="stable")[: int(np.floor(sparsity * flat.size + 0.5))]] = False
    parts = np.split(mask, np.cumsum([score.size for score in scores.values()])[:-1])
    return {
        name: part.reshape(score.shape)
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }


def magnitude(parameters: Arrays) -> Arrays:
    return {name: np.abs(parameters[name]) for name in WEIGHTS}


def times(masks: Arrays, parameters: Arrays) -> Arrays:
    return parameters | {name: masks[name] * parameters[name] for name in WEIGHTS}


# ---- the hook under test, driven in the loop's order


def linear() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    parameters, _, _ = problem()
    model.load_state_dict({name: torch.from_numpy(each) for name, each in parameters.items()})
    return model


def drive(
    method: str, goal: SparsifyConfig, decay: float
) -> Iterator[tuple[nn.Sequential, Sparsifier]]:
    """Yield the model and its hook after every step, and after the end of training."""
    model, hook = linear(), build(method, goal)
    hook.on_train_start(model)
    optimiser = torch.optim.SGD(
        model.parameters(), 0.0, 0.9, weight_decay=decay, nesterov=decay > 0
    )
    hook.on_optimiser(optimiser)
    x, t = (torch.from_numpy(each) for each in problem()[1:])
    for step, rate in enumerate(RATES, start=1):
        optimiser.zero_grad()
        (((model(x) - t) ** 2).sum() / 2 / len(x)).backward()
        hook.on_gradients(model, step)
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
        hook.on_step_end(model, step)
        if step % EPOCH == 0:
            hook.on_epoch_end(model, step // EPOCH)
        yield model, hook
    hook.on_train_end(model)
    yield model, hook


def follow(method: str, goal: SparsifyConfig, decay: float, reference: Iterator[Arrays]) -> None:
    """Compare all of the reference's arrays with the network after every step and at the end."""
    pairs = zip(drive(method, goal, decay), reference, strict=True)
    for step, ((model, _), expected) in enumerate(pairs, start=1):
        found = dict(model.named_parameters())
        for name, array in expected.items():
            values = found[name].detach().numpy()
            np.testing.assert_allclose(values, array, rtol=1e-9, atol=1e-12, err_msg=f"{step}")


TASK = SparsifyConfig(
    sparsity=0.6,
    epochs=4,
    pruning_steps=3,
    mask_interval=2,
    lc_mu0=0.01,
    dst_alpha=0.02,
    acdc_warmup=0.25,
    acdc_last=0.25,
    rigl_alpha=1.0,
    rigl_interval=2,
    epoch_steps=EPOCH,
    seed=1,
)


GRADUAL = SparsifyConfig(
    sparsity=0.7,
    epochs=6,
    pruning_steps=2,
    mask_interval=3,
    acdc_phase=2,
    rigl_interval=3,
    epoch_steps=4,
)
AUGMENTED = Settings(16, 5e-4, clip_norm=2.0, augmentation=Augmentation(1, flip=True))


def dropping() -> nn.Sequential:
    model = small()
    return nn.Sequential(*model[:4], nn.Dropout(0.2), model[4])


# ---- gradual pruning


@DECAYS
def test_gmp_prunes_on_the_ramp_and_trains_under_the_mask(decay):
    def reference() -> Iterator[Arrays]:
        parameters, _, _ = problem()
        step, masks = Momentum(decay), {name: np.ones_like(parameters[name]) for name in WEIGHTS}
        for count, rate in enumerate(RATES, start=1):
            step(parameters, times(masks, gradients(parameters)), rate)
            parameters = times(masks, parameters)
            if count in (3, 6, 9):
                level = 0.6 * (1 - (1 - (count / 3) / 3) ** 3)
                masks = keep(magnitude(parameters), level)
                parameters = times(masks, parameters)
            yield parameters
        yield parameters

    follow("gmp", TASK, decay, reference())


def test_gmp_never_brings_a_weight_back():
    before = {name: np.ones(each.shape, bool) for name, each in problem()[0].items()}
    pruned = []
    for model, hook in drive("gmp", TASK, 0.02):
        for name in WEIGHTS:
            mask = hook.masks[name].numpy()
            assert not (mask & ~before[name]).any()
            weight = model.get_parameter(name).detach().numpy()
            assert not weight[~mask].any()
            assert not np.signbit(weight[~mask]).any()
            before[name] = mask.copy()
        pruned.append(sum(int((~hook.masks[name]).sum()) for name in WEIGHTS))
    assert pruned == [0, 0, 8, 8, 8, 12, 12, 12, 12, 12, 12, 12, 12]  # of 20: 0.42, 0.58, 0.6


@DECAYS
def test_dpf_moves_the_dense_weights_by_the_pruned_networks_gradient(decay):
    dense: list[Arrays] = []

    def reference() -> Iterator[Arrays]:
        parameters, _, _ = problem()
        step, masks = Momentum(decay), {name: np.ones_like(parameters[name]) for name in WEIGHTS}
        level = 0.0
        for count, rate in enumerate(RATES, start=1):
            step(parameters, gradients(times(masks, parameters)), rate)
            if count in (3, 6, 9):
                level = 0.6 * (1 - (1 - (count / 3) / 3) ** 3)
            if level and ((count % 2 == 0 and count < 9) or count in (3, 6, 9)):
                masks = keep(magnitude(parameters), level)
            dense.append(dict(parameters))
            yield times(masks, parameters)
        yield times(masks, parameters)

    follow("dpf", TASK, decay, reference())
    for (_, hook), expected in zip(drive("dpf", TASK, decay), dense, strict=False):
        for name in WEIGHTS:
            np.testing.assert_allclose(hook.dense[name].numpy(), expected[name], rtol=1e-9)


@pytest.mark.parametrize("method", ["gmp", "dpf"])
def test_after_the_last_pruning_step_the_masks_are_held(method):
    """So copies that SMS averages share them; DPF's dense weights go on learning."""
    masks = {
        name: torch.from_numpy(mask) for name, mask in keep(magnitude(problem()[0]), 0.6).items()
    }
    goal = replace(TASK, begin=3, masks=masks)
    for model, hook in drive(method, goal, 0.02):
        for name in WEIGHTS:
            assert torch.equal(hook.masks[name], masks[name])
            assert not model.get_parameter(name)[~masks[name]].any()
    behind = hook.dense.get("0.weight")
    assert (behind is None) == (method == "gmp")
    if behind is not None:
        first = torch.from_numpy(problem()[0]["0.weight"])
        assert not (behind == first)[~masks["0.weight"]].any()


def test_between_pruning_steps_a_copy_of_dpf_refreshes_its_mask_and_one_of_gmp_does_not():
    """Epoch 2 of 4, whose step at its end is taken after averaging: 0.6 * 19 / 27 of 20 are 8."""
    masks = {
        name: torch.from_numpy(mask) for name, mask in keep(magnitude(problem()[0]), 0.42).items()
    }
    for method, refresh, changes in (("gmp", 2, False), ("dpf", 2, True), ("dpf", 0, False)):
        goal = replace(TASK, begin=1, end=2, mask_interval=refresh, masks=masks)
        seen = []
        for _, hook in list(drive(method, goal, 0.02))[:EPOCH]:
            pruned = sum(int((~hook.masks[name]).sum()) for name in WEIGHTS)
            seen.append((pruned, all(torch.equal(hook.masks[n], masks[n]) for n in WEIGHTS)))
        assert {pruned for pruned, _ in seen} == {8}
        assert all(same for _, same in seen) != changes


def parts(method: str, cuts: list[int]) -> tuple[nn.Module, Sparsifier]:
    """Train in parts, as the stages do: between two of them the pruning step is taken here."""
    model, state, masks = dropping(), TrainingState(), None
    hook = build(method, GRADUAL)
    for begin, end in pairwise([0, *cuts, 6]):
        if begin and method in {"gmp", "dpf"}:
            level = ramp(GRADUAL.sparsity, 6, GRADUAL.pruning_steps)[begin]
            weights = hook.dense or hook.weights
            masks = largest(magnitudes(weights), level, None if hook.dense else hook.masks)
            model.load_state_dict(model.state_dict() | hook.dense)
        elif begin:
            masks = hook.masks
        hook = build(method, replace(GRADUAL, begin=begin, end=end, masks=masks))
        rates = [0.1 * (1 - step / 24) for step in range(4 * begin, 4 * end)]
        history = train(model, dataset(), AUGMENTED, rates, seed=5, hooks=[hook], state=state)
        assert [row["epoch"] for row in history] == list(range(begin + 1, end + 1))
        if end < 6:
            fresh = dropping()
            fresh.load_state_dict(model.state_dict())
            model = fresh
    return model, hook


@pytest.mark.parametrize("method", ["gmp", "dpf", "acdc", "rigl"])
@pytest.mark.parametrize("cuts", [[2], [4], [2, 4]])
def test_a_training_in_parts_has_the_bits_of_one_in_one_piece(method, cuts):
    """Momentum, order, augmentation, dropout, BatchNorm, dense weights and masks all go on."""
    one, other = parts(method, []), parts(method, cuts)
    assert same_bits(one[0], other[0])
    assert all(torch.equal(mask, other[1].masks[name]) for name, mask in one[1].masks.items())


def test_other_streams_or_no_momentum_give_other_bits():
    whole, state = small(), TrainingState()
    train(whole, dataset(), SETTINGS, [0.1] * 8, seed=5)
    first = small()
    train(first, dataset(), SETTINGS, [0.1] * 4, seed=5, state=state)
    for without in ("momentum", "streams"):
        model = small()
        model.load_state_dict(first.state_dict())
        rest = replace(state, **{without: {}})
        train(model, dataset(), SETTINGS, [0.1] * 4, seed=5, state=rest)
        assert not same_bits(whole, model), without


def test_a_training_goes_on_after_a_part_on_the_other_kind_of_device():
    """A CUDA generator's state has 16 bytes, a CPU's 5,056: only that of dropout is another."""
    first, state = dropping(), TrainingState()
    train(first, dataset(), AUGMENTED, [0.1] * 4, seed=5, state=state)
    foreign = torch.zeros(16, dtype=torch.uint8)
    rests = [
        replace(state, streams=state.streams | {"dropout": foreign}),
        replace(state, streams={k: v for k, v in state.streams.items() if k != "dropout"}),
    ]
    models = [dropping(), dropping()]
    for model, rest in zip(models, rests, strict=True):
        model.load_state_dict(first.state_dict())
        train(model, dataset(), AUGMENTED, [0.1] * 4, seed=5, state=rest)
    assert same_bits(*models)


# ---- from the first step on


@DECAYS
def test_dnw_acts_with_the_largest_and_trains_all(decay):
    def reference() -> Iterator[Arrays]:
        parameters, _, _ = problem()
        step = Momentum(decay)
        for rate in RATES:
            masks = keep(magnitude(parameters), 0.6)
            step(parameters, gradients(times(masks, parameters)), rate)
            yield times(keep(magnitude(parameters), 0.6), parameters)
        yield times(keep(magnitude(parameters), 0.6), parameters)

    follow("dnw", TASK, decay, reference())


@DECAYS
def test_gsm_lets_the_most_salient_learn_and_decays_the_rest(decay):
    def reference() -> Iterator[Arrays]:
        parameters, _, _ = problem()
        step = Momentum(decay)
        for rate in RATES:
            grads = gradients(parameters)
            active = keep({name: np.abs(parameters[name] * grads[name]) for name in WEIGHTS}, 0.6)
            step(parameters, times(active, grads), rate)
            yield parameters
        yield times(keep(magnitude(parameters), 0.6), parameters)

    follow("gsm", TASK, decay, reference())


@DECAYS
def test_lc_penalises_all_but_the_largest_more_and_more(decay):
    def reference() -> Iterator[Arrays]:
        parameters, _, _ = problem()
        step = Momentum(decay)
        for count, rate in enumerate(RATES):
            mu = 0.01 * (1.0, 10.0, 100.0, 1000.0)[count // EPOCH]
            theta = times(keep(magnitude(parameters), 0.6), parameters)
            grads = gradients(parameters)
            for name in WEIGHTS:
                grads[name] = grads[name] + mu * (parameters[name] - theta[name])
            step(parameters, grads, rate)
            yield parameters
        yield times(keep(magnitude(parameters), 0.6), parameters)

    follow("lc", TASK, decay, reference())


# ---- masks that come and go


@DECAYS
def test_acdc_alternates_between_the_sparse_and_the_dense_network(decay):
    """Weights are masked after every step here, and stale momentum is left to the reset."""

    def reference() -> Iterator[Arrays]:
        parameters, _, _ = problem()
        dense = {name: np.ones_like(parameters[name]) for name in WEIGHTS}
        step, masks = Momentum(decay), dense
        for count, rate in enumerate(RATES, start=1):
            step(parameters, times(masks, gradients(parameters)), rate)
            parameters = times(masks, parameters)
            if count in (3, 9):  # epochs 2 and 4 are compressed, 1 and 3 are dense
                masks = keep(magnitude(parameters), 0.6)
                parameters = times(masks, parameters)
            if count == 6:
                masks, step.v = dense, {}
            yield parameters
        yield parameters

    follow("acdc", TASK, decay, reference())


def test_acdc_ranks_all_weights_anew_in_every_compressed_phase():
    model, hook = linear(), build("acdc", TASK)
    hook.on_train_start(model)
    hook.on_optimiser(torch.optim.SGD(model.parameters(), 0.1))
    hook.on_epoch_end(model, 1)
    before = dict(hook.masks)
    assert sum(int((~mask).sum()) for mask in before.values()) == 12
    hook.on_epoch_end(model, 2)
    assert all(mask.all() for mask in hook.masks.values())
    with torch.no_grad():
        for name, mask in before.items():
            model.get_parameter(name)[~mask] = 9.0
    hook.on_epoch_end(model, 3)
    kept = sum(int(mask.sum()) for mask in hook.masks.values())
    returned = sum(int((hook.masks[name] & ~mask).sum()) for name, mask in before.items())
    assert (kept, returned) == (8, 8)


def drop_and_grow(mask: np.ndarray, weight: np.ndarray, grad: np.ndarray, count: int) -> np.ndarray:
    """Return a layer's next mask, by two sorts."""
    active = sorted(zip(*np.nonzero(mask), strict=True), key=lambda at: abs(weight[at]))
    stay = set(active[count:])
    rest = [at for at in np.ndindex(mask.shape) if at not in stay]
    grown = sorted(rest, key=lambda at: -abs(grad[at]))[:count]
    after = np.zeros_like(mask)
    for at in [*stay, *grown]:
        after[at] = True
    return after


@DECAYS
@pytest.mark.parametrize("interval", [2, 4])
def test_rigl_drops_the_smallest_weights_and_grows_where_the_gradient_is_largest(decay, interval):
    goal = replace(TASK, rigl_interval=interval)
    hook = build("rigl", goal)
    hook.on_train_start(linear())
    first = {name: hook.masks[name].numpy().copy() for name in WEIGHTS}
    assert [int(mask.sum()) for mask in first.values()] == [4, 4], "8 of 20 by shares of 7 and 6"
    grown = []

    def reference() -> Iterator[Arrays]:
        step, masks, parameters = Momentum(decay), dict(first), times(first, problem()[0])
        for count, rate in enumerate(RATES, start=1):
            grads = gradients(parameters)
            if count % interval == 0 and count < 9:  # 0.75 of 12
                share = (1 + np.cos(np.pi * count / 9)) / 2
                for name in WEIGHTS:
                    many = int(np.floor(share * 4))
                    after = drop_and_grow(masks[name], parameters[name], grads[name], many)
                    grown.append(int((after & ~masks[name]).sum()))
                    masks[name] = after
                    step.v[name] = after * step.v[name]
                parameters = times(masks, parameters)
            else:
                step(parameters, times(masks, grads), rate)
            yield parameters
        yield parameters

    follow("rigl", goal, decay, reference())
    assert sum(grown) > 0
    assert sum(mask.sum() for mask in first.values()) == 8


def test_the_first_masks_of_rigl_are_drawn_from_the_seed_with_the_counts_of_erk():
    """50 of 100 by shares of 5 + 1 + 3 + 3 and 5 + 11: 21.4 and 28.6."""
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.Linear(11, 5))
    masks = []
    for seed in range(300):
        hook = build("rigl", SparsifyConfig(0.5, seed=seed % 299))
        hook.on_train_start(model)
        masks.append({name: mask.clone() for name, mask in hook.masks.items()})
    assert all(torch.equal(masks[0][name], masks[299][name]) for name in masks[0])
    for name, kept in (("0.weight", 21), ("1.weight", 29)):
        counts = torch.stack([each[name].flatten() for each in masks[:299]]).double().sum(0)
        share = kept / counts.numel()
        assert counts.sum() == 299 * kept
        assert (counts / 299 - share).abs().max() < 5 * (share * (1 - share) / 299) ** 0.5


class Connections(Hook):
    """Sees what RigL does in the real loop, by the masks before and after every iteration."""

    def __init__(self, hook: Sparsifier) -> None:
        self.hook, self.updates, self.grown, self.layers = hook, [], 0, set()

    def on_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        self.optimiser = optimiser
        self.keep()

    def keep(self) -> None:
        self.masks = {name: mask.clone() for name, mask in self.hook.masks.items()}
        self.values = {name: each.detach().clone() for name, each in self.hook.weights.items()}

    def on_step_end(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        changed = False
        for name, mask in self.hook.masks.items():
            weight, before = self.hook.weights[name].detach(), self.masks[name]
            momentum = self.optimiser.state[self.hook.weights[name]]["momentum_buffer"]
            new = mask & ~before
            self.layers.add((name, int(mask.sum())))
            for tensor in (weight, momentum):
                assert not tensor[~mask | new].any()
                assert not tensor[~mask].signbit().any()
            if not torch.equal(mask, before):
                changed = True
                assert torch.equal(weight, self.values[name] * mask), "no step in this iteration"
            self.grown += int(new.sum())
        self.updates += [step] * changed
        self.keep()


def test_rigl_keeps_the_weights_of_every_layer_in_the_real_loop():
    model, hook = small(), build("rigl", replace(LOOP, rigl_interval=2))
    seen = Connections(hook)
    train(model, dataset(), SETTINGS, [0.1] * 16, seed=5, hooks=[hook, seen])
    assert seen.updates == [2, 4, 6, 8, 10]
    assert seen.grown > 20
    assert sorted(seen.layers) == [("0.weight", 12), ("4.weight", 199)], "shares of 13, 219"


@pytest.mark.parametrize(
    ("epochs", "epoch_steps", "interval"),
    [(100, 313, 100), (30, 18, 20), (4, 2, 10), (90, 1251, 100)],
)
def test_updates_come_more_often_in_a_short_training(epochs, epoch_steps, interval):
    goal = SparsifyConfig(0.9, epochs, epoch_steps=epoch_steps)
    assert build("rigl", goal).interval == interval
    assert build("rigl", replace(goal, rigl_interval=7)).interval == 7


# ---- learned thresholds


@DECAYS
def test_dst_learns_a_threshold_for_every_output_channel(decay):
    def masked(parameters: Arrays, name: str) -> np.ndarray:
        return (np.abs(parameters[name]) >= parameters[f"{name}.t"]) * parameters[name]

    def reference() -> Iterator[Arrays]:
        parameters, _, _ = problem()
        parameters |= {f"{name}.t": np.zeros((len(parameters[name]), 1)) for name in WEIGHTS}
        step = Momentum(decay)
        for rate in RATES:
            acting = parameters | {name: masked(parameters, name) for name in WEIGHTS}
            grads = gradients(acting)
            for name in WEIGHTS:
                w, t, g = parameters[name], parameters[f"{name}.t"], grads[name]
                q = np.abs(w) - t
                h = np.where(np.abs(q) <= 0.4, 2 - 4 * np.abs(q), 0.4 * (np.abs(q) <= 1))
                grads[name] = g * ((q >= 0) + w * h * np.sign(w))
                grads[f"{name}.t"] = -(g * w * h).sum(1, keepdims=True) - 0.02 * np.exp(-t)
            step(parameters, grads, rate)
            yield named(parameters, "t")
        yield {name: masked(parameters, name) for name in WEIGHTS}

    follow("dst", TASK, decay, reference())


@DECAYS
def test_str_learns_a_soft_threshold_for_every_layer(decay):
    def soft(w: np.ndarray, s: np.ndarray) -> np.ndarray:
        return np.sign(w) * np.maximum(np.abs(w) - 1 / (1 + np.exp(-s)), 0)

    def reference() -> Iterator[Arrays]:
        parameters, _, _ = problem()
        parameters |= {f"{name}.s": np.array(-0.5) for name in WEIGHTS}
        step = Momentum(decay)
        for rate in RATES:
            acting = {name: soft(parameters[name], parameters[f"{name}.s"]) for name in WEIGHTS}
            grads = gradients(parameters | acting)
            for name in WEIGHTS:
                g, sigma = grads[name], 1 / (1 + np.exp(-parameters[f"{name}.s"]))
                active = np.abs(parameters[name]) > sigma
                grads[name] = g * active
                pull = (g * np.sign(parameters[name]) * active).sum()
                grads[f"{name}.s"] = -pull * sigma * (1 - sigma)
            step(parameters, grads, rate)
            yield named(parameters, "s")
        yield {name: soft(parameters[name], parameters[f"{name}.s"]) for name in WEIGHTS}

    follow("str", SparsifyConfig(str_init=-0.5), decay, reference())


def named(parameters: Arrays, threshold: str) -> Arrays:
    """Return the arrays under the names that torch gives them while they are parametrised."""
    found = {name: each for name, each in parameters.items() if name.endswith("bias")}
    for name in WEIGHTS:
        inner = name.replace("weight", "parametrizations.weight")
        found[f"{inner}.original"] = parameters[name]
        found[f"{inner}.0.{threshold}"] = parameters[f"{name}.{threshold}"]
    return found


def test_dst_resets_the_thresholds_of_a_layer_that_is_all_but_gone():
    model, hook = linear(), build("dst", TASK)
    hook.on_train_start(model)
    thresholds = [function.get_parameter("t") for function in hook.functions.values()]
    thresholds[0].data.fill_(9.0)
    thresholds[1].data.fill_(0.3)
    hook.on_step_end(model, 1)
    assert not thresholds[0].any()
    assert (thresholds[1] == 0.3).all()


# ---- all of them, in the real loop


class Watch(Hook):
    """Sees that the sparsifier's masks hold after every step."""

    def __init__(self, hook: Sparsifier) -> None:
        self.hook, self.steps = hook, 0

    def on_step_end(self, model: nn.Module, step: int) -> None:
        self.steps = step
        for name in ("0.weight", "4.weight"):
            pruned = model.get_submodule(name[0]).weight[~self.hook.masks[name]]
            assert not pruned.any(), (name, step)
            assert not pruned.signbit().any(), (name, step)


SETTINGS = Settings(16, 5e-4, clip_norm=2.0)
LOOP = SparsifyConfig(
    sparsity=0.7,
    epochs=4,
    pruning_steps=2,
    mask_interval=3,
    lc_mu0=1e-3,
    dst_alpha=1e-4,
    str_init=-3.0,
    rigl_interval=3,
    epoch_steps=4,
)


def trained(method: str, goal: SparsifyConfig = LOOP) -> tuple[nn.Module, Sparsifier]:
    model, hook = small(), build(method, goal)
    watch = Watch(hook)
    hooks = [hook, watch] if method in {"gmp", "dpf", "dnw", "acdc", "rigl"} else [hook]
    train(model, dataset(), SETTINGS, [0.1] * 16, seed=5, hooks=hooks)
    assert watch.steps == (16 if len(hooks) == 2 else 0)
    return model, hook


@pytest.mark.parametrize("method", names())
def test_plain_weights_and_exact_masks_are_left(method):
    model, hook = trained(method)
    assert model.state_dict().keys() == small().state_dict().keys()
    assert type(model[0]) is nn.Conv2d, "no parametrisation stays"
    pruned = total = 0
    for name, mask in hook.masks.items():
        weight = model.get_parameter(name)
        assert mask.dtype == torch.bool
        assert not weight[~mask].any()
        assert not weight[~mask].signbit().any()
        if method != "rigl":  # where a connection may have grown that has no gradient since
            assert weight[mask].all(), "what is kept is not zero here"
        pruned, total = pruned + int((~mask).sum()), total + mask.numel()
    assert total == 6 * 9 + 216 * 3
    if method not in {"dst", "str"}:
        assert pruned == 491  # floor(0.7 * 702 + 1/2)


@pytest.mark.parametrize("method", names())
def test_same_seed_same_bits(method):
    one, other = trained(method), trained(method)
    assert same_bits(one[0], other[0])
    assert all(torch.equal(mask, other[1].masks[name]) for name, mask in one[1].masks.items())


@pytest.mark.parametrize("method", ["gmp", "acdc", "rigl"])
def test_clipping_counts_no_gradient_of_a_pruned_weight(method):
    """The hooks act before the gradients are clipped."""
    hook, pruned = build(method, LOOP), []

    class After(Hook):
        def on_gradients(self, model: nn.Module, _: int) -> None:
            for name, mask in hook.masks.items():
                assert not model.get_parameter(name).grad[~mask].any()
                pruned.append(int((~mask).sum()))

    train(small(), dataset(), SETTINGS, [0.1] * 16, seed=5, hooks=[hook, After()])
    assert sum(pruned) > 0


def test_channels_of_a_convolution_have_a_threshold_each():
    _, hook = trained("dst")
    shapes = [tuple(function.get_parameter("t").shape) for function in hook.functions.values()]
    assert shapes == [(6, 1, 1, 1), (3, 1)]


# ---- the ramp, the ranking, the refusals


def test_the_ramp_by_hand():
    found = ramp(0.9, 40, 3)
    assert list(found) == [10, 20, 30]
    assert found[10] == pytest.approx(0.9 * 19 / 27)
    assert found[20] == pytest.approx(0.9 * 26 / 27)
    assert found[30] == 0.9
    assert list(ramp(0.9, 90, 9)) == list(range(9, 90, 9))


@given(st.floats(0, 0.999), st.integers(2, 200), st.data())
def test_the_ramp_rises_to_exactly_the_target_before_the_last_epoch(target, epochs, data):
    steps = data.draw(st.integers(1, epochs - 1))
    found = ramp(target, epochs, steps)
    assert len(found) == steps
    assert list(found) == sorted(found)
    assert min(found) >= 1
    assert max(found) < epochs
    levels = list(found.values())
    assert levels == sorted(levels)
    assert levels[-1] == target
    for number, (epoch, level) in enumerate(found.items(), start=1):
        left = 1 - Fraction(number, steps)
        assert level == pytest.approx(float(Fraction(target) * (1 - left**3)), abs=1e-12)
        assert abs(epoch - epochs * number / (steps + 1)) <= 0.5


@pytest.mark.parametrize(
    ("epochs", "warmup", "phase", "last", "compressed"),
    [
        (100, 0.1, 5, 0.15, [*range(10, 71, 10), 85]),
        (150, 0.066, 5, 0.1, [*range(10, 121, 10), 135]),
        (200, 0.05, 20, 0.15, [*range(10, 171, 40)]),
    ],
)
def test_the_phases_of_acdc_are_those_of_its_authors(epochs, warmup, phase, last, compressed):
    """ImageNet in 100 and 150 epochs, CIFAR in 200: epochs from which the network is sparse."""
    steps = alternation(epochs, warmup, phase, last)
    assert [epoch for epoch, compresses in steps.items() if compresses] == compressed
    dense = [epoch for epoch, compresses in steps.items() if not compresses]
    assert dense == [epoch + phase for epoch in compressed[:-1]]


@given(st.integers(1, 300), st.floats(0.01, 0.9), st.integers(0, 40), st.floats(0.01, 0.9))
def test_the_phases_of_acdc_alternate_and_end_compressed(epochs, warmup, phase, last):
    first, tail = (max(1, round_fraction(share, epochs)) for share in (warmup, last))
    long = phase or max(1, int(exact(0.05) * epochs + exact(0.5)))
    if epochs - first - tail < 2 * long:
        with pytest.raises(UserError, match="acdc_phase"):
            alternation(epochs, warmup, phase, last)
        return
    steps = alternation(epochs, warmup, phase, last)
    ends = list(steps)
    assert (ends[0], ends[-1]) == (first, epochs - tail)
    assert list(steps.values()) == [number % 2 == 0 for number in range(len(steps))]
    assert steps[ends[-1]]
    lengths = [after - before for before, after in pairwise(ends)]
    assert set(lengths[:-1]) == {long}
    assert long <= lengths[-1] < 3 * long, "what is left belongs to the last dense phase"


@given(st.integers(0, 99), st.floats(0, 1))
def test_one_ranking_over_all_layers(seed, sparsity):
    draw = np.random.default_rng(seed)
    scores = {name: draw.random(shape).astype("f") for name, shape in (("a", (3, 4)), ("b", (5,)))}
    found = largest({name: torch.from_numpy(each) for name, each in scores.items()}, sparsity)
    pruned = sum(int((~mask).sum()) for mask in found.values())
    assert abs(pruned - 17 * sparsity) <= 0.5
    lost = [scores[name][~found[name].numpy()] for name in scores]
    kept = [scores[name][found[name].numpy()] for name in scores]
    if 0 < pruned < 17:
        assert np.concatenate(lost).max() <= np.concatenate(kept).min()


@pytest.mark.parametrize(
    ("method", "goal", "words"),
    [
        ("prune", TASK, "use one of acdc, dnw, dpf, dst, gmp, gsm, lc, rigl, str"),
        ("acdc", SparsifyConfig(0.5, 3), "sparsify.acdc_phase is 1, .* 3 epochs leave 1 between"),
        ("acdc", SparsifyConfig(0.5, 20, acdc_phase=8), "acdc_phase is 8, .* 20 epochs leave 15"),
        ("acdc", SparsifyConfig(0.5, 9, acdc_warmup=0.6, acdc_last=0.6), "leave 0 between"),
        ("rigl", SparsifyConfig(0.5, 4, rigl_interval=1), "rigl_interval is 1, .* 0 or at least 2"),
        ("rigl", SparsifyConfig(0.5, 4, rigl_end=0.0), r"rigl_end is 0, but must be in \(0, 1\]"),
        ("rigl", SparsifyConfig(0.5, 4, rigl_alpha=2.0), r"rigl_alpha is 2, .* in \[0, 1\]"),
        ("gmp", SparsifyConfig(0.5, 4, pruning_steps=4), "one less than the 4 epochs"),
        ("dpf", SparsifyConfig(0.5, 4, pruning_steps=0), "one less than the 4 epochs"),
        (
            "dpf",
            SparsifyConfig(0.5, 4, pruning_steps=1, mask_interval=-1),
            "sparsify.mask_interval is -1",
        ),
        ("lc", SparsifyConfig(1.0), "the sparsity is 1.0"),
    ],
)
def test_refusals(method, goal, words):
    with pytest.raises(UserError, match=words):
        build(method, goal)
