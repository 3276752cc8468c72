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
from pipeline.schedules.sparsity import ramp
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
    sparsity=0.6, epochs=4, pruning_steps=3, mask_interval=2, lc_mu0=0.01, dst_alpha=0.02
)


GRADUAL = SparsifyConfig(sparsity=0.7, epochs=6, pruning_steps=2, mask_interval=3)
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
        if begin:
            level = ramp(GRADUAL.sparsity, 6, GRADUAL.pruning_steps)[begin]
            weights = hook.dense or hook.weights
            masks = largest(magnitudes(weights), level, None if hook.dense else hook.masks)
            model.load_state_dict(model.state_dict() | hook.dense)
        hook = build(method, replace(GRADUAL, begin=begin, end=end, masks=masks))
        rates = [0.1 * (1 - step / 24) for step in range(4 * begin, 4 * end)]
        history = train(model, dataset(), AUGMENTED, rates, seed=5, hooks=[hook], state=state)
        assert [row["epoch"] for row in history] == list(range(begin + 1, end + 1))
        if end < 6:
            fresh = dropping()
            fresh.load_state_dict(model.state_dict())
            model = fresh
    return model, hook


@pytest.mark.parametrize("method", ["gmp", "dpf"])
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
            weight = model.get_submodule(name[0]).weight
            assert not weight[~self.hook.masks[name]].any(), (name, step)


SETTINGS = Settings(16, 5e-4, clip_norm=2.0)
LOOP = SparsifyConfig(
    sparsity=0.7,
    epochs=4,
    pruning_steps=2,
    mask_interval=3,
    lc_mu0=1e-3,
    dst_alpha=1e-4,
    str_init=-3.0,
)


def trained(method: str, goal: SparsifyConfig = LOOP) -> tuple[nn.Module, Sparsifier]:
    model, hook = small(), build(method, goal)
    watch = Watch(hook)
    hooks = [hook, watch] if method in {"gmp", "dpf", "dnw"} else [hook]
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
        ("prune", TASK, "use one of dnw, dpf, dst, gmp, gsm, lc, str"),
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
