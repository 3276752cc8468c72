"""A training step without the host, and its capture: one function, called or replayed."""

import weakref
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.data.base import Dataset
from pipeline.models.build import build
from pipeline.sparsify.base import SparsifyConfig
from pipeline.sparsify.build import build as build_method
from pipeline.sparsify.build import names
from pipeline.train import cuda_graph, step
from pipeline.train.batches import Batches
from pipeline.train.criterion import CrossEntropy
from pipeline.train.cuda_graph import Eager, HostNeededError, stepper
from pipeline.train.hook import Hook
from pipeline.train.loop import Settings, train
from pipeline.train.step import Step
from pipeline.train.swa import AverageEpochs
from tests.fake_card import CARD, card, misplaced
from tests.test_loop import (
    AUGMENTED,
    CPU,
    SETTINGS,
    dataset,
    random_masks,
    resnet,
    same_bits,
    small,
)
from tests.test_precision import pictures, sentences

ALL = Settings(16, 5e-4, clip_norm=0.5, label_smoothing=0.1, augmentation=AUGMENTED)
BF16 = Settings(16, 5e-4, clip_norm=0.5, augmentation=AUGMENTED, precision="bf16")
GOAL = SparsifyConfig(
    sparsity=0.5,
    epochs=4,
    pruning_steps=2,
    mask_interval=2,
    lc_mu0=0.01,
    dst_alpha=0.1,
    rigl_interval=3,
    epoch_steps=4,
)
RATES = [0.1 - 0.008 * number for number in range(10)]  # two epochs of four steps and a half one


def with_dropout() -> nn.Module:
    return nn.Sequential(small(), nn.Dropout(0.3))


def maps() -> Dataset:
    return pictures(torch.zeros(8, 16, 16, dtype=torch.int64))


# ---- nothing of a step needs the host


class OnCard(TorchDispatchMode):
    """Refuses every operation in which a tensor is not on the card."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        assert {tensor.device.type for tensor in tensors} <= {"cuda"}, func
        self.seen += 1
        return result


@pytest.mark.parametrize(
    ("network", "data", "settings"),
    [
        (small, dataset, ALL),
        (resnet, dataset, BF16),
        (with_dropout, dataset, SETTINGS),
        (lambda: build("pspnet_small", 3, 3), maps, Settings(4, 0.0, augmentation=AUGMENTED)),
    ],
    ids=["all", "bf16", "dropout", "maps"],
)
def test_a_step_on_a_gpu_neither_waits_nor_copies(network, data, settings):
    with card() as reads:
        model, rates = network(), [0.1] * 4
        model.to(device=CARD, memory_format=torch.channels_last).train()
        batches = Batches(data(), settings.batch_size, settings.augmentation, seed=0, device=CARD)
        own = Step(model, CrossEntropy(), settings, random_masks(model), rates, CARD)
        batches.shuffle()
        reads.count.clear()
        with OnCard() as watch:
            own.backward(*batches.batch(own.taken % len(batches)))
            own.update()
        assert not misplaced(model)
    assert watch.seen > 50
    assert reads.waits == 0


# ---- what is replayed is what is called


class OnFakeGpu(Step):
    """A step on the CPU by the implementation that GPUs use: the fused one, its rate a tensor."""

    def __init__(self, model: nn.Module, *rest: Any) -> None:
        super().__init__(model, *rest)
        self.on_gpu = True
        self.optimiser = step._optimiser(model, self.settings, on_gpu=True)
        self.optimiser.param_groups[0]["lr"] = self.rate


@contextmanager
def restored(tensors: Sequence[Tensor]):
    before, drawn = [tensor.detach().clone() for tensor in tensors], torch.get_rng_state()
    yield
    with torch.no_grad():
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)
    torch.set_rng_state(drawn)


def capture(functions: Sequence[Callable[[], None]], tensors: Sequence[Tensor]):
    """Run ``functions`` as a warm-up does, put ``tensors`` back, and return what to call."""
    with restored(tensors):
        for _ in range(3):
            for function in functions:
                function()
    return list(functions)


def trained(network, settings, monkeypatch, *, replayed: bool, method: str = "", masked=True):
    monkeypatch.setattr("pipeline.train.loop.Step", OnFakeGpu)
    monkeypatch.setattr(cuda_graph, "capture", capture)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: replayed)
    model = network()
    hooks = [AverageEpochs(0.0, 3)]
    if method:
        hooks = [build_method(method, GOAL)]
    masks = random_masks(model) if masked and not method else None
    history = train(model, dataset(), settings, RATES, seed=3, masks=masks, hooks=hooks)
    return model, history


@pytest.mark.parametrize("settings", [ALL, BF16, SETTINGS], ids=["all", "bf16", "plain"])
def test_warming_up_leaves_no_trace_and_the_counter_finds_every_batch(settings, monkeypatch):
    """Parameters, momentum, BatchNorm, dropout, sums and the learning rate are as if called."""
    called, one = trained(with_dropout, settings, monkeypatch, replayed=False)
    replayed, two = trained(with_dropout, settings, monkeypatch, replayed=True)
    assert same_bits(called, replayed)
    assert one == two


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_training_shorter_than_warming_up_has_its_steps(steps, monkeypatch):
    """Warming up reads a learning rate a run; on a GPU an index out of range ends the process."""
    runs = []
    for replayed in (False, True):
        model = small()
        monkeypatch.setattr("pipeline.train.loop.Step", OnFakeGpu)
        monkeypatch.setattr(cuda_graph, "capture", capture)
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=replayed: found)
        runs.append((model, train(model, dataset(), SETTINGS, RATES[:steps], seed=3)))
    assert same_bits(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


@pytest.mark.parametrize("method", names())
def test_hooks_act_between_the_two_parts(method, monkeypatch):
    called, one = trained(small, ALL, monkeypatch, replayed=False, method=method)
    replayed, two = trained(small, ALL, monkeypatch, replayed=True, method=method)
    assert same_bits(called, replayed)
    assert one == two


def test_the_fused_step_is_the_step_of_the_cpu(monkeypatch):
    """Momentum that is 0 at first and a rate in a tensor change no more than the rounding."""
    fused, _ = trained(small, ALL, monkeypatch, replayed=False)
    monkeypatch.undo()
    plain, hooks = small(), [AverageEpochs(0.0, 3)]
    train(plain, dataset(), ALL, RATES, seed=3, masks=random_masks(plain), hooks=hooks)
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(fused.get_parameter(name), weight, rtol=1e-4, atol=1e-6)


class Opaque(Hook):
    capturable = False


@pytest.mark.parametrize(
    ("change", "replays"),
    [
        ({}, True),
        ({"hooks": [AverageEpochs(0.5, 2)]}, True),
        ({"hooks": [Opaque()]}, False),
        ({"settings": Settings(16, 0.0, graph=False)}, False),
        ({"data": sentences(torch.randint(2, 9, (64, 6)))}, False),
        ({"gpu": False}, False),
        ({"world": 2}, False),
    ],
    ids=["plain", "epochs", "opaque", "asked", "sentences", "cpu", "several"],
)
def test_one_rule_says_what_is_captured(change, replays, monkeypatch):
    data, settings = change.get("data", dataset()), change.get("settings", SETTINGS)
    model = small()
    own = OnFakeGpu(model, CrossEntropy(), settings, {}, RATES, CPU)
    own.on_gpu = change.get("gpu", True)
    batches = Batches(data, 16, settings.augmentation, seed=0, device=CPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda_graph, "world_size", lambda: change.get("world", 1))
    monkeypatch.setattr(cuda_graph, "Replayed", lambda *_: "replayed")
    found = stepper(own, batches, change.get("hooks", []))
    assert (found == "replayed") == replays
    assert isinstance(found, Eager) != replays


def test_a_network_that_needs_the_host_is_called(monkeypatch, capsys):
    def refuse(*_: Any) -> None:
        raise HostNeededError("the network makes the host wait for the GPU")

    monkeypatch.setattr(cuda_graph, "capture", refuse)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    own = OnFakeGpu(small(), CrossEntropy(), SETTINGS, {}, RATES, CPU)
    batches = Batches(dataset(), 16, AUGMENTED, seed=0, device=CPU)
    assert isinstance(stepper(own, batches, []), Eager)
    assert "one by one: the network makes the host wait" in capsys.readouterr().out


@pytest.mark.parametrize("fails", [False, True])
def test_tensors_are_restored_after_all_that_warming_up_writes(fails, monkeypatch):
    """The side stream's work is queued: the current stream must wait, however warming up ends."""
    waits, drawing = [], iter([False, False, fails])
    side, current = "side", SimpleNamespace(wait_stream=waits.append)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: SimpleNamespace(wait_stream=str, name=side))
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", str)
    with pytest.raises(HostNeededError) if fails else nullcontext():
        cuda_graph._warm_up([lambda: torch.rand(1) if next(drawing) else None])
    assert [stream.name for stream in waits] == [side]


# ---- on a GPU


def on_gpu(network=small, settings=SETTINGS, *, seed=3, method="", masked=True, data=dataset):
    """Train on the GPU and return the network, its history, and whether steps were replayed."""
    torch.manual_seed(0)
    model, hooks = network(), []
    if method:
        hooks = [build_method(method, GOAL)]
    masks = random_masks(model) if masked and not method else None
    kinds = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pipeline.train.loop.stepper",
            lambda *arguments: kinds.append(stepper(*arguments)) or kinds[-1],
        )
        history = train(
            model, data(), settings, RATES, seed=seed, masks=masks, hooks=hooks, device="cuda"
        )
    return model, history, not isinstance(kinds[0], Eager)


def eager(settings: Settings) -> Settings:
    return Settings(**(vars(settings) | {"graph": False}))


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("network", "settings"),
    [
        (small, SETTINGS),
        (small, ALL),
        (resnet, ALL),
        (resnet, BF16),
        (with_dropout, ALL),
        (with_dropout, BF16),
        (lambda: build("resnet18", 3, 1), BF16),
    ],
    ids=["plain", "all", "resnet", "resnet-bf16", "dropout", "dropout-bf16", "resnet18-bf16"],
)
@pytest.mark.parametrize("masked", [True, False])
def test_replayed_steps_have_the_bits_of_called_ones(network, settings, masked):
    called, one, no = on_gpu(network, eager(settings), masked=masked)
    replayed, two, yes = on_gpu(network, settings, masked=masked)
    assert (no, yes) == (False, True)
    assert same_bits(called, replayed)
    assert one == two


@pytest.mark.gpu
@pytest.mark.parametrize("method", names())
def test_hooks_have_the_bits_of_called_steps(method):
    called, one, _ = on_gpu(small, eager(ALL), method=method)
    replayed, two, yes = on_gpu(small, ALL, method=method)
    assert yes
    assert same_bits(called, replayed)
    assert one == two


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [ALL, BF16], ids=["fp32", "bf16"])
def test_equal_seeds_give_equal_bits_on_a_gpu_and_others_do_not(settings):
    first, again, other = (on_gpu(with_dropout, settings, seed=seed)[0] for seed in (3, 3, 4))
    assert same_bits(first, again)
    assert not same_bits(first, other)


class Watched(cuda_graph.Replayed):
    """Forbids waiting from an epoch's upload to its end."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        shuffle = self.start_epoch

        def start_epoch() -> None:
            shuffle()
            torch.cuda.set_sync_debug_mode("error")

        self.start_epoch = start_epoch


class Allow(Hook):
    """Allows it again, for validation reads its result."""

    def __init__(self) -> None:
        self.epochs = 0

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:  # noqa: ARG002
        assert torch.cuda.get_sync_debug_mode() == 2
        torch.cuda.set_sync_debug_mode("default")
        self.epochs = epoch


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_an_epoch_of_replayed_steps_never_waits(monkeypatch):
    monkeypatch.setattr(cuda_graph, "Replayed", Watched)
    allow = Allow()
    try:
        train(small(), dataset(), ALL, RATES, seed=3, hooks=[allow], device="cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert allow.epochs == 3


class Waits(nn.Module):
    """A network that reads a number back in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small()

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.inner(images)
        return scores if scores.sum().item() < 0 else scores.clone()


def test_a_refused_capture_keeps_nothing_of_its_pass(monkeypatch):
    """Its autograd graph would add to gradients on the stream of the warm-up."""
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", str)
    scores = []

    def forward():
        product = 2 * torch.ones(3, requires_grad=True)
        scores.append(weakref.ref(product))
        raise RuntimeError("called a synchronizing CUDA operation")

    with pytest.raises(HostNeededError), cuda_graph._no_waiting():
        forward()
    assert [kept() for kept in scores] == [None]


@pytest.mark.gpu
def test_a_network_that_waits_trains_as_if_capture_had_not_been_tried(capsys):
    waiting, one, replayed = on_gpu(Waits, ALL, masked=False)
    plain, two, _ = on_gpu(small, eager(ALL), masked=False)
    assert not replayed
    assert "one by one" in capsys.readouterr().out
    assert one == two
    assert same_bits(waiting.inner, plain)


@pytest.mark.gpu
def test_the_fastest_kernels_train_too():
    settings = Settings(**(vars(ALL) | {"deterministic": False}))
    _, one, _ = on_gpu(resnet, ALL)
    try:
        _, two, _ = on_gpu(resnet, settings)
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
    finally:
        on_gpu(small, SETTINGS)  # back to equal bits
    assert torch.are_deterministic_algorithms_enabled()
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=0.05)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # some kernels for maps have no deterministic version
def test_maps_of_labels_are_captured():
    settings = Settings(4, 0.0, augmentation=AUGMENTED)
    network = lambda: build("pspnet_small", 3, 3)  # noqa: E731
    _, one, _ = on_gpu(network, eager(settings), masked=False, data=maps)
    _, two, yes = on_gpu(network, settings, masked=False, data=maps)
    assert yes
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=0.02)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of modules that the compiler imports
def test_compiled_steps_are_captured():
    settings = Settings(**(vars(BF16) | {"compile": True}))
    _, one, _ = on_gpu(resnet, BF16)
    _, two, yes = on_gpu(resnet, settings)
    assert yes
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=0.02)
