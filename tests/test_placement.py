"""Everything that computes does so on the device it is given, tested where there is no card.

Tensors are fake ones on the device cuda (tests/fake_card.py): one that is left on the CPU fails as
it would on a card, and every time that the host would wait for the card is counted.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.channels.products import macs
from pipeline.data.base import Dataset, Split
from pipeline.evaluate.corruptions.constants import SEVERITIES
from pipeline.evaluate.corruptions.npy_set import NpySet
from pipeline.evaluate.iou import confusion
from pipeline.evaluate.robustness import robustness
from pipeline.evaluate.speedup import latencies, savings
from pipeline.models.build import build
from pipeline.soup import build as rules
from pipeline.sparsify.base import SparsifyConfig
from pipeline.sparsify.build import build as sparsifier
from pipeline.sparsify.build import names as methods
from pipeline.stagekit.merge_inputs import MergeInputs
from pipeline.stagekit.model_folder import with_batchnorm_statistics, write
from pipeline.storage.checkpoint import Checkpoint
from pipeline.tasks.base import load as load_task
from pipeline.train import placement
from pipeline.train.batchnorm import reestimate
from pipeline.train.criterion import CrossEntropy
from pipeline.train.distill import Distilled
from pipeline.train.ema import AverageSteps
from pipeline.train.loop import Hook, Settings, train
from pipeline.train.placement import resident
from pipeline.train.predict import batch_on, count_correct, eval_batch_size, logits
from pipeline.train.s2sam import SingleStep
from pipeline.train.sam import SharpnessAware
from pipeline.train.settings import Augmentation
from pipeline.train.swa import AverageEpochs
from stages import pretrain
from tests.fake_card import CARD, MisplacedError, card, misplaced, run_backward

CPU = torch.device("cpu")
AUGMENTED = Augmentation(crop_padding=1, flip=True, rotation=10.0)
SETTINGS = Settings(batch_size=4, weight_decay=5e-4, augmentation=AUGMENTED)
TASKS = {
    "resnet8": "classification",
    "resnet18": "classification",
    "resnet20": "classification",
    "wrn20": "classification",
    "torchvision.resnet18": "classification",
    "pspnet_small": "segmentation",
    "pspnet": "segmentation",
    "t5tiny": "translation",
}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def pictures(count: int, size: int = 8, *, a_pixel: bool = False) -> Split:
    shape = (count, size, size) if a_pixel else (count,)
    images = torch.randint(256, (count, 3, size, size), generator=seeded(), dtype=torch.uint8)
    return Split(images, torch.randint(3, shape, generator=seeded()))


def sentences(count: int) -> Split:
    tokens = torch.randint(2, 32, (count, 2, 5), generator=seeded())
    return Split(tokens, torch.randint(2, 32, (count, 5), generator=seeded()))


def dataset(task: str = "classification", train: int = 8, val: int = 6, test: int = 4) -> Dataset:
    make = {
        "classification": pictures,
        "segmentation": lambda count: pictures(count, 16, a_pixel=True),
        "translation": sentences,
    }[task]
    channels, classes = (0, 32) if task == "translation" else (3, 3)
    return Dataset(
        make(train),
        make(val),
        make(test),
        tuple(map(str, range(classes))),
        torch.full((channels,), 0.5),
        torch.full((channels,), 0.25),
        {},
        task=task,
    )


def network(name: str = "resnet8", data: Dataset | None = None) -> nn.Module:
    data = data or dataset()
    return build(name, len(data.classes), data.train.images.shape[1])


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    )


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.ones(parameter.shape, dtype=torch.bool)
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1
    }


# ---- training


@pytest.mark.parametrize("name", TASKS)
def test_training_predicting_and_batchnorm_leave_nothing_on_the_cpu(name):
    data = dataset(TASKS[name], train=4, val=2, test=2)
    if TASKS[name] == "translation":
        settings = replace(SETTINGS, clip_norm=1.0, augmentation=Augmentation())
    else:
        settings = replace(SETTINGS, clip_norm=1.0)
    task = load_task(data.task)
    with card():
        model = network(name, data)
        train(
            model,
            data,
            settings,
            [0.1],
            seed=0,
            criterion=task,
            masks=masks_of(model),
            device="cuda",
        )
        assert misplaced(model) == []
        reestimate(model, data.train.images, data.mean, data.std)
        predictions = task.predict(model, data, data.test)
        assert misplaced(model) == []
    assert predictions.device == CPU, "whoever measures them is there"
    assert len(predictions) == len(data.test)


def test_bf16_is_computed_on_the_card_in_bfloat16():
    seen = []
    with card():
        model = network()
        layer = model.get_submodule("conv1")
        layer.register_forward_hook(lambda *found: seen.append((model.training, found[2])))
        train(
            model,
            dataset(),
            replace(SETTINGS, precision="bf16", clip_norm=1.0),
            [0.1] * 2,
            seed=0,
            masks=masks_of(model),
            device="cuda",
        )
        assert misplaced(model) == []
    expected = {(True, torch.bfloat16, CARD), (False, torch.float32, CARD)}
    assert {(training, out.dtype, out.device) for training, out in seen} == expected


def hooks() -> list[str]:
    return [*methods(), "swa", "ema"]


@pytest.mark.parametrize(
    ("name", "held"),
    [
        *((name, False) for name in hooks()),
        *((name, True) for name in ("acdc", "dpf", "gmp", "rigl")),
    ],
)
def test_every_hook_keeps_its_tensors_on_the_card(name, held):
    with card():
        model = small()
        goal = SparsifyConfig(
            0.5,
            epochs=4,
            pruning_steps=3,
            mask_interval=1,
            lc_mu0=0.1,
            dst_alpha=0.1,
            str_init=-5.0,
            rigl_interval=2,
            epoch_steps=2,
            masks=masks_of(model) if held else None,
        )
        averages = {"swa": AverageEpochs(0.0, epochs=2), "ema": AverageSteps(0.9)}
        hook = averages[name] if name in averages else sparsifier(name, goal)
        settings = replace(SETTINGS, clip_norm=1.0)
        train(model, dataset(), settings, [0.1] * 8, seed=0, hooks=[hook], device="cuda")
        assert misplaced(model) == []
        kept = {
            "swa": lambda: list(hook.mean.values()),
            "ema": lambda: hook.mean,
        }.get(name, lambda: [*hook.masks.values(), *hook.dense.values()])()
        assert kept
        assert {tensor.device for tensor in kept} == {CARD}


STEPS = {"sam": SharpnessAware, "s2sam": SingleStep}


def sharp_training(kind: str, examples: int = 8, precision: str = "fp32") -> dict[str, int]:
    """Train on the card with distillation too, and return how often the host waits."""
    with card() as reads:
        model = small()
        teacher = small().to(device=CARD, memory_format=torch.channels_last)
        train(
            model,
            dataset(train=examples),
            replace(SETTINGS, clip_norm=1.0, precision=precision),
            [0.1] * (examples // 4),
            seed=0,
            criterion=Distilled(CrossEntropy(), teacher, weight=0.5, temperature=2.0),
            masks=masks_of(model),
            hooks=[AverageSteps(0.9)],
            step_type=partial(STEPS[kind], rho=0.1),
            device="cuda",
        )
        assert misplaced(model) == []
        assert misplaced(teacher) == []
    return dict(reads.count)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", STEPS)
def test_options_of_retraining_stay_on_the_card_and_do_not_wait(kind, precision):
    assert sharp_training(kind, 4, precision) == sharp_training(kind, 16, precision)


def waits_of_an_epoch(
    examples: int, make_hooks: Callable[[], Sequence[Hook]] = tuple, **kwargs: object
) -> dict[str, int]:
    with card() as reads:
        model, hooks = small(), make_hooks()
        train(
            model,
            dataset(train=examples),
            replace(SETTINGS, clip_norm=1.0, **kwargs),
            [0.1] * (examples // 4),
            seed=0,
            masks={} if hooks else masks_of(model),
            hooks=hooks,
            device="cuda",
        )
    return dict(reads.count)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_epoch_of_more_steps_waits_for_the_card_no_more_often(precision):
    assert waits_of_an_epoch(4, precision=precision) == waits_of_an_epoch(16, precision=precision)


EVERY_STEP = SparsifyConfig(
    0.5,
    epochs=4,
    pruning_steps=3,
    mask_interval=1,
    dst_alpha=0.1,
    acdc_warmup=0.25,
    rigl_interval=2,
    epoch_steps=4,
)


@pytest.mark.parametrize("name", methods())
def test_a_step_of_pruning_during_training_does_not_wait(name):
    def make_hooks() -> list[Hook]:
        return [sparsifier(name, EVERY_STEP)]

    assert waits_of_an_epoch(4, make_hooks) == waits_of_an_epoch(16, make_hooks)


@pytest.mark.parametrize("name", ["acdc", "dnw", "dpf", "gsm", "lc"])
def test_ranking_the_weights_adds_no_wait_to_a_training(name):
    ranked = waits_of_an_epoch(16, lambda: [sparsifier(name, EVERY_STEP)])
    assert ranked == waits_of_an_epoch(16, lambda: [Hook()])


# ---- passes without training


def passes(examples: int) -> dict[str, dict[str, int]]:
    """Return how the host waits in each kind of pass, in batches of two."""
    split, mean, std = pictures(examples), torch.full((3,), 0.5), torch.full((3,), 0.25)
    kinds = {
        "validation": lambda: count_correct(model, CrossEntropy(), split, mean, std),
        "batchnorm": lambda: reestimate(model, split.images, mean, std, batch_size=2),
        "augmented": lambda: reestimate(model, split.images, mean, std, 2, AUGMENTED),
        "logits": lambda: logits(model, split.images, mean, std, batch_size=2),
    }
    found = {}
    for kind, make in kinds.items():
        with card() as reads, pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipeline.train.predict.batch_on", lambda *_: 2)
            model = small().to(CARD)
            before = reads.count.copy()
            make()
            reads.count.subtract(before)
            found[kind] = {kind: times for kind, times in reads.count.items() if times}
    return found


def test_passes_do_not_wait_between_batches():
    finite = {"number": 1}  # at the end of the pass: whether the statistics are
    augmented = finite | {"up": 1}  # the draws of all images
    expected = {"validation": {}, "batchnorm": finite, "augmented": augmented, "logits": {}}
    assert passes(4) == passes(12) == expected


@pytest.mark.parametrize(
    ("name", "task"), [("pspnet_small", "segmentation"), ("t5tiny", "translation")]
)
def test_what_is_kept_of_a_split_comes_down_once(name, task):
    found = []
    for count in (2, 4):
        data = dataset(task, val=count)
        with card() as reads, pytest.MonkeyPatch.context() as patch:
            for module in ("train.predict", "tasks.translation"):
                patch.setattr(f"pipeline.{module}.batch_on", lambda *_: 2)
            model = network(name, data).to(CARD)
            before = reads.count.copy()
            load_task(task).predict(model, data, data.val)
            reads.count.subtract(before)
        found.append(reads.count["down"])
        if task == "segmentation":  # a translation is as long as its sentences, which are looked at
            assert reads.count["number"] == reads.count["shape"] == 0
    assert found == [1, 1]


def test_counts_by_class_are_those_of_a_loop():
    labels = torch.randint(-1, 3, (4, 5, 6), generator=seeded())
    predicted = torch.randint(3, (4, 5, 6), generator=seeded())
    expected = torch.zeros(4, 3, 3, dtype=torch.int64)
    for n, row, column in np.ndindex(4, 5, 6):
        if labels[n, row, column] >= 0:
            expected[n, labels[n, row, column], predicted[n, row, column]] += 1
    assert torch.equal(confusion(predicted, labels, 3), expected)


def test_a_network_that_puts_out_infinity_is_right_nowhere():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    split, mean, std = pictures(600), torch.zeros(3), torch.ones(3)
    right, count = count_correct(model, CrossEntropy(), split, mean, std)
    assert (float(right), float(count)) == (
        float((logits(model, split.images, mean, std).argmax(1) == split.labels).sum()),
        600,
    )
    split.images[-1], split.images[:-1] = 255, 0  # in the last of three batches
    nn.init.constant_(model[1].weight, 1e38)
    right, count = count_correct(model, CrossEntropy(), split, mean, std)
    assert right.isnan()
    assert count == 600


def test_a_card_is_given_more_at_once():
    def sizes(height: int, width: int) -> tuple[int, int]:
        images = torch.empty(1, 1, 1, 1, dtype=torch.uint8).expand(1, 1, height, width)
        assert batch_on(CPU, images) == eval_batch_size(images), "bits on a CPU stay"
        assert batch_on(CARD, images) % eval_batch_size(images) == 0
        return eval_batch_size(images), batch_on(CARD, images)

    assert sizes(32, 32) == (256, 1024)
    assert sizes(64, 64) == (256, 256)
    assert sizes(224, 224) == (83, 83)
    assert batch_on(CARD, torch.zeros(3, 2, 7, dtype=torch.int64)) == 256


def test_a_split_that_fits_stays_on_the_card(monkeypatch):
    data = dataset(train=64, val=8)
    assert resident(data, CPU) is data
    monkeypatch.setattr(placement, "memory", lambda _: 16 * data.val.images.nbytes)
    with card() as reads:
        placed = resident(data, CARD)
        assert placed.val.images.device == placed.test.images.device == CARD
        assert placed.train.images is data.train.images, "too large"
        assert placed.val.labels is data.val.labels, "scores are computed by the host"
        model = small().to(CARD)
        before = reads.count.copy()
        count_correct(model, CrossEntropy(), placed.val, data.mean, data.std)
        with_batchnorm_statistics(Checkpoint(network().state_dict(), {}, META), placed, CARD)
        assert reads.count["number"] == before["number"] + 1  # as above


# ---- merging

META = {"network": "resnet8", "classes": 3, "channels": 3, "phase": 1, "sparsity": 0.0, "epochs": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """Return the folders of a dense network, a parent and two candidates, made on the CPU."""
    root = tmp_path_factory.mktemp("placement")
    for seed, name in enumerate(("dense", "parent", "one", "two")):
        torch.manual_seed(seed)
        write(root / name, Checkpoint(network().state_dict(), {}, META), dataset(), CPU)
    return [root / name for name in ("dense", "parent", "one", "two")]


@pytest.mark.parametrize("sent", [True, False], ids=["resident", "by batches"])
@pytest.mark.parametrize("rule", rules.names())
def test_every_merge_rule_judges_its_soups_on_the_card(rule, sent, folders, monkeypatch):
    monkeypatch.setattr("pipeline.soup.learned.STEPS", 1)
    monkeypatch.setattr("pipeline.soup.wise.GRID", (1.0, 0.0))
    monkeypatch.setattr(placement, "memory", lambda _: 2**30)
    dense, parent, *candidates = folders
    used = []
    measure = with_batchnorm_statistics

    def watched(*given: object) -> tuple[nn.Module, Tensor]:
        model, predictions = measure(*given)
        used.append(misplaced(model))
        return model, predictions

    monkeypatch.setattr("pipeline.stagekit.merge_inputs.with_batchnorm_statistics", watched)
    with card():
        data = resident(dataset(), CARD) if sent else dataset()
        given = MergeInputs(candidates, data, CARD, parent=parent, dense=dense)
        asked = {name: getattr(given, name) for name in rules.required_inputs(rule)}
        soup = rules.load(rule).merge(given.candidates, **asked)
    assert {tensor.device for tensor in soup.checkpoint.state.values()} == {CPU}
    assert used == [[]] * len(used)
    assert bool(used) == bool({"score", "loss", "distillation"} & asked.keys())


def test_the_slopes_of_a_soup_are_read_once(folders):
    with card() as reads:
        given = MergeInputs(folders[2:], dataset(), CARD)
        slopes = given.loss.gradient
        before = reads.count.copy()
        found = slopes(torch.full((2,), 0.5, dtype=torch.float64), 0)
    assert found.device == CPU
    assert reads.count["down"] - before["down"] == 1
    assert reads.count["number"] == before["number"]


# ---- robustness and latency


def corrupted(count: int) -> NpySet:
    shape = (count * len(SEVERITIES), 8, 8, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    labels = np.random.default_rng(0).integers(0, 3, shape[0])
    return NpySet({"fog": images}, labels, synthetic=True)


@pytest.fixture
def in_pairs(monkeypatch):
    monkeypatch.setattr("pipeline.evaluate.corruptions.npy_set.set_batch_size", lambda *_: 2)


def test_robustness_reads_one_count_a_cell(in_pairs):
    data, found = dataset(), []
    for count in (2, 8):
        with card() as reads:
            model = small().to(CARD)
            before = reads.count.copy()

            def predict(images: Tensor, model: nn.Module = model) -> Tensor:
                return logits(model, images, data.mean, data.std)

            robustness(predict, corrupted(count))
            reads.count.subtract(before)
        found.append(reads.count["down"])
        assert reads.count["number"] == reads.count["shape"] == reads.count["up"] == 0
    assert found == [len(SEVERITIES)] * 2


def test_robustness_counts_the_same_in_any_batches(in_pairs):
    data, model, images = dataset(), small(), corrupted(7)
    model.eval()

    def predict(images: Tensor) -> Tensor:
        return logits(model, images, data.mean, data.std)

    found = robustness(predict, images)["by_corruption"]["fog"]
    for severity, accuracy in enumerate(found):
        rows = slice(7 * severity, 7 * severity + 7)
        inputs = torch.from_numpy(images.images["fog"][rows]).permute(0, 3, 1, 2)
        labels = torch.from_numpy(images.labels[rows])
        right = (predict(inputs).argmax(1) == labels).sum()
        assert accuracy == float(right) / 7


def test_a_pass_is_timed_from_an_idle_card_to_an_idle_card(monkeypatch):
    events: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _=None: events.append("idle"))
    with card():
        models = {name: small().to(CARD) for name in "ab"}
        for name, model in models.items():
            model.register_forward_hook(lambda *_, name=name: events.append(name))
        latencies(models, torch.empty(2, 3, 8, 8, device=CARD), seconds=0.0)
        passes = [name for pair in ("ab", "ba") for name in pair]
        expected = [event for name in passes for event in ("idle", name, "idle")]
        assert events == expected * 3, "every other round runs backwards"
        monkeypatch.setattr("pipeline.evaluate.speedup.MIN_ROUNDS", 1)
        clock = time.perf_counter
        monkeypatch.setattr("pipeline.evaluate.speedup.perf_counter", lambda: 100 * clock())
        found = savings(models["a"], models["b"], masks_of(models["a"]), (3, 8, 8))
    assert found["macs"]["dense"] == found["macs"]["removed"] > 0


def test_savings_are_those_of_one_example_and_of_the_measured_times(monkeypatch):
    masked, removed = small(), nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    masks = {"0.weight": torch.arange(masked[0].weight.numel()).view_as(masked[0].weight) > 9}
    seconds = {"masked": 0.03, "removed": 0.01}
    monkeypatch.setattr("pipeline.evaluate.speedup.latencies", lambda *_: seconds)
    found = savings(masked, removed, masks, (3, 8, 8))
    example = torch.zeros(1, 3, 8, 8)
    assert found["macs"]["dense"] == sum(macs(masked, example).values())
    assert found["macs"]["removed"] == 3 * 8 * 8 * 2
    total = sum(parameter.numel() for parameter in masked.parameters())
    assert found["parameters"] == {"dense": total, "masked": total - 10, "removed": 386}
    for times in found["latency"].values():
        assert times == pytest.approx({"masked_ms": 30, "removed_ms": 10, "speedup": 3})


# ---- the stand-in itself


class LeftBehind(Hook):
    """Masks the first weight's gradient by a mask in the host's memory."""

    def on_train_start(self, model: nn.Module) -> None:
        self.mask = torch.ones(next(model.parameters()).shape, dtype=torch.bool)

    def on_gradients(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        next(model.parameters()).grad.masked_fill_(~self.mask, 0)


class LeftInAList(LeftBehind):
    """Does so by an operation on lists, which fake tensors do not check."""

    def on_gradients(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        torch._foreach_mul_([next(model.parameters()).grad], [self.mask.float()])


class LeftParameter(Hook):
    """Adds a parameter that stays with the host."""

    def on_train_end(self, model: nn.Module) -> None:
        model.more = nn.Parameter(torch.zeros(1))


class LeftLabels(CrossEntropy):
    def loss(self, scores: Tensor, labels: Tensor, **options: object) -> Tensor:
        return super().loss(scores, labels.cpu(), **options)


@pytest.mark.parametrize(
    "fault",
    [
        {"hooks": [LeftBehind()]},
        {"hooks": [LeftInAList()]},
        {"criterion": LeftLabels()},
    ],
    ids=["mask", "list", "labels"],
)
def test_a_tensor_that_is_left_on_the_cpu_is_found(fault):
    with card(), pytest.raises((MisplacedError, RuntimeError), match=r"on (the same device|cpu)"):
        train(small(), dataset(), SETTINGS, [0.1], seed=0, device="cuda", **fault)


def test_a_parameter_that_is_left_on_the_cpu_is_found():
    with card():
        model = small()
        train(model, dataset(), SETTINGS, [0.1], seed=0, device="cuda", hooks=[LeftParameter()])
        assert misplaced(model) == ["more"]


def test_what_the_host_waits_for_is_counted():
    with card() as reads:
        x = torch.ones(3, device=CARD)
        for wait in (
            lambda: x.sum().item(),
            lambda: float(x[0]),
            lambda: bool(x.isfinite().all()),
            x.cpu,
            x.nonzero,
            lambda: x[x > 0],
            lambda: torch.ones(3).to(CARD),
        ):
            before = reads.waits
            wait()
            assert reads.waits == before + 1
        with torch.inference_mode():
            assert x.sum().item() == 1
        before = reads.waits
        (x + 1).sum().add_(x.max())
        torch.ones(3).pin_memory().to(CARD, non_blocking=True)
        assert reads.waits == before


def test_the_stand_in_for_autograd_gives_autograds_bits(monkeypatch):
    inputs = torch.randn(4, 3, 8, 8, generator=seeded())
    gradients = []
    for _ in range(2):
        torch.manual_seed(0)
        model = small()
        cross_entropy(model(inputs), torch.tensor([0, 1, 2, 0])).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        inner = torch.autograd.grad(model(inputs).sum(), list(model.parameters()))
        gradients[-1] += inner
        monkeypatch.setattr("torch.autograd._engine_run_backward", run_backward)
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert all(a.any() for a, _ in pairwise(gradients[1]))


def test_pretraining_checks_the_network_before_the_images_are_sent(monkeypatch):
    """The network is on the host until the loop sends it."""
    sent = []

    def send(data: Dataset, device: torch.device) -> Dataset:
        sent.append(data)
        images = data.train.images.to("meta")
        return replace(data, train=replace(data.train, images=images))

    def stop(*given: object, **more: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(pretrain, "load", lambda folder: dataset())  # noqa: ARG005
    monkeypatch.setattr(pretrain, "resident", send)
    monkeypatch.setattr(pretrain, "train", stop)
    words = "--data d --out o --network resnet8 --epochs 1 --batch-size 4 --weight-decay 0 --seed 0"
    words += " --schedule linear --learning-rate 0.1"
    with pytest.raises(InterruptedError):
        pretrain.main(pretrain.parser.parse_args(words.split()))
    assert sent
