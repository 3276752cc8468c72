"""The training loop: masks as in torch's own pruning, equal seeds, honest counts, golden losses.

The golden losses (ten steps of ResNet-8 on a CPU) are in tests/golden/loop.json. A change that is
meant to alter them rewrites the file by `SMS_GOLDEN=write python -m pytest tests/test_loop.py`.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_, prune

from pipeline.data.base import Dataset, Split
from pipeline.errors import UserError
from pipeline.models.build import build
from pipeline.train.batches import Batches
from pipeline.train.loop import Hook, Settings, steps_per_epoch, train
from pipeline.train.malloc import configure_malloc
from pipeline.train.predict import logits
from pipeline.train.settings import Augmentation

GOLDEN = Path(__file__).parent / "golden" / "loop.json"
CPU = torch.device("cpu")
AUGMENTED = Augmentation(crop_padding=1, flip=True, rotation=10.0)
SETTINGS = Settings(batch_size=16, weight_decay=5e-4, augmentation=AUGMENTED)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(count: int, seed: int) -> Split:
    """Return noisy images of three classes: a bright row at the top, middle or bottom."""
    generator = seeded(seed)
    labels = torch.randint(3, (count,), generator=generator)
    images = torch.randint(100, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(count), 0, 1 + 2 * labels] += 120
    return Split(images, labels)


def dataset(count: int = 64, val: int = 40) -> Dataset:
    mean, std = torch.tensor([0.25]), torch.tensor([0.2])
    return Dataset(blobs(count, 1), blobs(val, 2), blobs(4, 3), tuple("abc"), mean, std, {})


def resnet(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("resnet8", 3, 1)


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3)
    )


def random_masks(model: nn.Module, sparsity: float = 0.8) -> dict[str, Tensor]:
    return {
        name: torch.rand(parameter.shape, generator=seeded()) >= sparsity
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1
    }


def same_bits(left: nn.Module, right: nn.Module) -> bool:
    pairs = zip(left.state_dict().items(), right.state_dict().items(), strict=True)
    return all(key == name and torch.equal(a, b) for (key, a), (name, b) in pairs)


class Record(Hook):
    """Remembers when it was called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def on_step_end(self, model: nn.Module, step: int) -> None:
        assert model.training
        self.calls.append(("step", step))

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:
        assert model.training
        self.calls.append(("epoch", epoch))


# ---- masks


def retrain_with_torch_prune(
    model: nn.Module, masks: dict[str, Tensor], settings: Settings, rates: list[float]
) -> dict[str, Tensor]:
    """Retrain by torch's reparametrisation weight = original * mask, on the loop's own batches."""
    model.to(memory_format=torch.channels_last).train()
    names = [name for name, _ in model.named_parameters()]
    for name, mask in masks.items():
        module, _, parameter = name.rpartition(".")
        prune.custom_from_mask(model.get_submodule(module), parameter, mask)
    decay = settings.weight_decay
    optimiser = torch.optim.SGD(
        model.parameters(), 1.0, settings.momentum, weight_decay=decay, nesterov=decay > 0
    )
    batches = Batches(dataset(), settings.batch_size, settings.augmentation, seed=7, device=CPU)
    steps = (batch for _ in rates for batch in batches.epoch())
    for rate, (images, labels) in zip(rates, steps, strict=False):
        optimiser.param_groups[0]["lr"] = rate
        optimiser.zero_grad()
        cross_entropy(model(images), labels).backward()
        if settings.clip_norm:
            own = dict(model.named_parameters())  # in another order: `prune` moves them to the end
            ordered = [own[f"{name}_orig" if name in masks else name] for name in names]
            clip_grad_norm_(ordered, settings.clip_norm)
        optimiser.step()
    for name in masks:
        module, _, parameter = name.rpartition(".")
        prune.remove(model.get_submodule(module), parameter)
    return dict(model.named_parameters())


@pytest.mark.parametrize(
    "settings",
    [
        Settings(16, 5e-4, augmentation=AUGMENTED),
        Settings(16, 0.0),
        Settings(16, 5e-4, clip_norm=0.5),
    ],
    ids=["nesterov", "plain", "clipped"],
)
@pytest.mark.parametrize("network", [resnet, small])
def test_masks_give_the_bits_of_torch_prune(network, settings):
    rates = [0.1 - 0.005 * step for step in range(10)]
    masks = random_masks(network())
    model = network()
    train(model, dataset(), settings, rates, seed=7, masks=masks)
    expected = retrain_with_torch_prune(network(), masks, settings, rates)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected[name]), name
        assert not torch.equal(parameter, dict(network().named_parameters())[name]), name


def test_a_layer_that_the_network_never_uses_is_left_alone():
    """It is prunable and has a mask, but never a gradient."""

    class WithUnused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = small()
            torch.manual_seed(1)
            self.unused = nn.Linear(4, 4)

        def forward(self, images: Tensor) -> Tensor:
            return self.used(images)

    alone, model = small(), WithUnused()
    masks = random_masks(alone)
    kept = {"unused.weight": torch.ones(4, 4, dtype=torch.bool)}
    before = model.unused.weight.detach().clone()
    train(alone, dataset(), SETTINGS, [0.1] * 8, seed=0, masks=masks)
    both = {f"used.{name}": mask for name, mask in masks.items()} | kept
    train(model, dataset(), SETTINGS, [0.1] * 8, seed=0, masks=both)
    assert same_bits(alone, model.used)
    assert torch.equal(before, model.unused.weight)


def test_pruned_weights_are_positive_zero_after_every_step():
    model = small()
    masks = random_masks(model)

    class Check(Record):
        def on_step_end(self, model: nn.Module, step: int) -> None:
            super().on_step_end(model, step)
            for name, mask in masks.items():
                pruned = model.get_parameter(name)[~mask]
                assert not pruned.any()
                assert not pruned.signbit().any()

    check = Check()
    train(model, dataset(), SETTINGS, [0.1] * 12, seed=0, masks=masks, hooks=[check])
    assert ("step", 12) in check.calls


# ---- seeds


def test_same_seed_same_bits_and_another_seed_others():
    models = []
    for seed in (0, 0, 1):
        model = nn.Sequential(small(), nn.Dropout(0.3))
        torch.manual_seed(len(models))  # what the caller drew before must not matter
        history = train(model, dataset(), SETTINGS, [0.05] * 8, seed=seed)
        models.append((model, history))
    (first, one), (again, two), (other, three) = models
    assert same_bits(first, again)
    assert one == two
    assert not same_bits(first, other)
    assert one != three


def test_order_augmentation_and_dropout_do_not_share_a_stream():
    """Augmenting leaves the order of the data as it was."""
    orders = []
    for augmentation in (Augmentation(), AUGMENTED):
        batches = Batches(dataset(), 16, augmentation, seed=0, device=CPU)
        orders.append(torch.cat([labels for _ in range(3) for _, labels in batches.epoch()]))
    assert torch.equal(*orders)


def test_augmentation_and_dropout_leave_each_others_draws_alone():
    """A network that keeps its images, and the entries that its dropout keeps."""

    class Watched(nn.Module):
        def __init__(self, rate: float) -> None:
            super().__init__()
            self.dropout, self.last = nn.Dropout(rate), nn.Linear(64, 3)
            self.images, self.kept = [], []

        def forward(self, images: Tensor) -> Tensor:
            if self.training:
                self.images.append(images.clone())
                self.kept.append(self.dropout(torch.ones(len(images), 3)) > 0)
            return self.last(images.flatten(1))

    def watched(augmentation: Augmentation, rate: float) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        model = Watched(rate)
        train(model, dataset(), Settings(16, 0.0, augmentation=augmentation), [0.1] * 8, seed=0)
        return torch.cat(model.images), torch.cat(model.kept)

    plain, augmented = watched(Augmentation(), 0.5), watched(AUGMENTED, 0.5)
    assert torch.equal(plain[1], augmented[1])
    assert 0 < plain[1].double().mean() < 1
    assert not torch.equal(plain[0], augmented[0])
    assert torch.equal(augmented[0], watched(AUGMENTED, 0.0)[0])


# ---- epochs, batches and counts


def test_an_epoch_sees_each_example_once_in_an_order_of_its_own():
    data = dataset()
    data = replace(data, train=Split(data.train.images, torch.arange(64)))
    batches = Batches(data, 16, Augmentation(), seed=0, device=CPU)
    first, second = (torch.cat([labels for _, labels in batches.epoch()]) for _ in range(2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(64))
    assert not torch.equal(first, second)


def test_batches_are_the_normalised_images():
    data = dataset()
    (images, labels), *_ = Batches(data, 64, Augmentation(), seed=0, device=CPU).epoch()
    pixels = (images.double() * 0.2 + 0.25) * 255
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-3)
    match = (pixels.round()[:, None] == data.train.images[None]).flatten(2).all(2)
    rows = match.int().argmax(1)
    assert match.sum() == len(rows.unique()) == 64
    assert torch.equal(labels, data.train.labels[rows])


@pytest.mark.parametrize(
    ("examples", "batch_size", "steps"), [(64, 16, 4), (63, 16, 3), (16, 16, 1), (5, 16, 1)]
)
def test_a_short_last_batch_is_dropped_and_a_small_set_is_one_batch(examples, batch_size, steps):
    assert steps_per_epoch(examples, batch_size) == steps
    record = Record()
    settings = Settings(batch_size, 0.0)
    history = train(
        small(), dataset(examples), settings, [0.01] * 2 * steps, seed=0, hooks=[record]
    )
    expected = [("step", step) for step in range(1, steps + 1)] + [("epoch", 1)]
    expected += [("step", step) for step in range(steps + 1, 2 * steps + 1)] + [("epoch", 2)]
    assert record.calls == expected
    assert [row["epoch"] for row in history] == [1, 2]


@pytest.mark.parametrize("count", [64, 10])
def test_loss_and_accuracy_are_means_over_examples(count):
    """At learning rate 0 a network without BatchNorm scores as in one pass over the set."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    data = dataset(count)
    settings = Settings(16, 5e-4, label_smoothing=0.1)
    [row] = train(model, data, settings, [0.0] * steps_per_epoch(count, 16), seed=0)
    scores = logits(model, data.train.images, data.mean, data.std)
    loss = cross_entropy(scores, data.train.labels, label_smoothing=0.1)
    assert row["loss"] == pytest.approx(loss.item(), abs=1e-6)
    assert row["accuracy"] == (scores.argmax(1) == data.train.labels).sum().item() / count
    scores = logits(model, data.val.images, data.mean, data.std)
    assert row["val_accuracy"] == (scores.argmax(1) == data.val.labels).sum().item() / 40


def test_each_step_takes_its_own_learning_rate():
    """Weights move at the steps of a rate above 0; the history has the epochs' last rates."""
    moved = []

    class Watch(Hook):
        def on_step_end(self, model: nn.Module, step: int) -> None:
            assert step == len(moved) + 1
            moved.append(model[0].weight.detach().clone())

    rates = [0.0, 0.1, 0.0, 0.02, 0.05]
    history = train(small(), dataset(), SETTINGS, rates, seed=0, hooks=[Watch()])
    still = [torch.equal(a, b) for a, b in zip([small()[0].weight, *moved], moved, strict=False)]
    assert still == [True, False, True, False, False]
    assert [row["learning_rate"] for row in history] == [0.02, 0.05]


def test_gradients_are_clipped_after_the_hooks():
    """The first step of SGD without decay is -eta g, and ||g|| is at most clip_norm."""

    class Enlarge(Hook):
        def on_gradients(self, model: nn.Module, _: int) -> None:
            for parameter in model.parameters():
                parameter.grad.fill_(100.0)

    model = small()
    before = nn.utils.parameters_to_vector(model.parameters()).detach()
    train(model, dataset(), Settings(16, 0.0, clip_norm=0.5), [0.1], seed=0, hooks=[Enlarge()])
    step = nn.utils.parameters_to_vector(model.parameters()).detach() - before
    torch.testing.assert_close(step, torch.full_like(step, -0.1 * 0.5 / len(step) ** 0.5))


def test_every_epoch_trains_in_training_mode():
    """Whatever mode the network came in, or a hook left it in after an epoch."""
    modes = []

    class Evaluate(Record):
        def on_gradients(self, model: nn.Module, _: int) -> None:
            modes.append(all(module.training for module in model.modules()))

        def on_epoch_end(self, model: nn.Module, _: int) -> None:
            model.eval()

    train(small().eval(), dataset(), SETTINGS, [0.1] * 8, seed=0, hooks=[Evaluate()])
    assert modes == [True] * 8


def test_training_learns():
    model = resnet()
    settings = Settings(16, 5e-4, augmentation=Augmentation(crop_padding=1))
    history = train(model, dataset(128), settings, [0.05] * 64, seed=0)
    assert history[-1]["val_accuracy"] > 0.95
    assert history[-1]["loss"] < history[0]["loss"] / 3


def test_a_hook_acts_before_the_epoch_is_validated():
    class Forget(Hook):
        def on_epoch_end(self, model: nn.Module, epoch: int) -> None:
            nn.init.zeros_(model[-1].weight)
            nn.init.constant_(model[-1].bias, 0.0)
            model[-1].bias.data[epoch] = 1.0  # epoch 1: class 1

    data = dataset()
    [row] = train(small(), data, SETTINGS, [0.1] * 4, seed=0, hooks=[Forget()])
    assert row["val_accuracy"] == (data.val.labels == 1).sum().item() / 40


# ---- what the user and the next stage see


def test_divergence_names_epoch_rate_and_mend():
    with pytest.raises(UserError, match=r"epoch 2 .* learning rate 1e\+30: lower"):
        train(small(), dataset(), SETTINGS, [0.01] * 4 + [1e30] * 4, seed=0)


def test_divergence_in_the_very_last_step_is_noticed():
    with pytest.raises(UserError, match="epoch 1"):
        train(small(), dataset(16), SETTINGS, [float("inf")], seed=0)


def test_one_event_an_epoch(tmp_path, monkeypatch):
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv("SMS_EVENTS", str(events))
    history = train(small(), dataset(), SETTINGS, [0.01] * 8, seed=0)
    assert [json.loads(line) for line in events.read_text().splitlines()] == [
        row | {"epochs": 2} for row in history
    ]


def test_the_model_is_left_in_the_usual_layout():
    model = small()
    train(model, dataset(), SETTINGS, [0.01], seed=0)
    assert all(value.is_contiguous() for value in model.state_dict().values())


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's malloc")
def test_freed_memory_is_used_again_without_page_faults():
    resource = pytest.importorskip("resource")

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16_000_000)  # 64 MB: 15,625 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    configure_malloc()
    assert sum(faults() for _ in range(20)) < 15 * 15_625  # at first the heap finds its layout
    assert faults() < 1000


# ---- other precisions and devices


def test_bf16_is_close_to_fp32():
    losses = []
    for precision in ("fp32", "bf16"):
        settings = Settings(16, 5e-4, precision=precision)
        losses.append(
            [row["loss"] for row in train(small(), dataset(), settings, [0.01] * 12, seed=0)]
        )
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_compiled_is_close_to_eager():
    losses = []
    for compiled in (False, True):
        settings = Settings(16, 5e-4, compile=compiled)
        losses.append(
            [row["loss"] for row in train(small(), dataset(), settings, [0.01] * 12, seed=0)]
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_trains_on_the_same_batches_under_the_same_masks(precision):
    masks = random_masks(small())
    settings = Settings(16, 5e-4, augmentation=AUGMENTED, precision=precision)
    losses = []
    for device in ("cpu", "cuda"):
        model = small()
        history = train(model, dataset(), settings, [0.01] * 12, seed=0, masks=masks, device=device)
        losses.append([row["loss"] for row in history])
        for name, mask in masks.items():
            assert not model.get_parameter(name).cpu()[~mask].any()
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_an_epoch_on_a_gpu_never_waits_for_the_host():
    batches = Batches(dataset(), 16, AUGMENTED, seed=0, device=torch.device("cuda")).epoch()
    next(batches)  # the epoch's one transfer
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert sum(1 for _ in batches) == 3
    finally:
        torch.cuda.set_sync_debug_mode("default")


# ---- golden


def test_golden_losses():
    """Ten steps of ResNet-8 under a mask, crops, flips and rotations, to 1e-5."""
    torch.set_num_threads(1)
    model = resnet()
    history = train(
        model,
        dataset(24),
        SETTINGS,
        [0.02] * 10,
        seed=0,
        masks=random_masks(model, sparsity=0.5),
    )
    losses = [row["loss"] for row in history]
    if os.environ.get("SMS_GOLDEN") == "write":
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps({"losses": losses}, indent=2) + "\n")
    golden = json.loads(GOLDEN.read_text())["losses"]
    assert len(golden) == 10
    assert losses == pytest.approx(golden, abs=1e-5)
