"""What merge rules are given: scores of soups, on the validation split and by no label of test."""

import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from pipeline.data.base import Dataset, Split
from pipeline.errors import UserError
from pipeline.models.build import build
from pipeline.soup import build as rules
from pipeline.stagekit.merge_inputs import MergeInputs
from pipeline.stagekit.model_folder import network, read, write
from pipeline.storage import checkpoint
from pipeline.storage.checkpoint import Checkpoint, load_tensors, read_json
from pipeline.train.batchnorm import reestimate
from pipeline.train.settings import Augmentation

CPU = torch.device("cpu")
META = {"network": "resnet8", "classes": 3, "channels": 1, "sparsity": 0.0}


def split(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 90, (count, 1, 8, 8), generator=generator)
    return Split((noise + 60 * labels.view(-1, 1, 1, 1)).byte(), labels)


@pytest.fixture(scope="module")
def data() -> Dataset:
    mean, std = torch.tensor([0.4]), torch.tensor([0.2])
    return Dataset(split(300, 1), split(30, 2), split(12, 3), tuple("abc"), mean, std, {})


@pytest.fixture(scope="module")
def folders(data, tmp_path_factory) -> list[Path]:
    """Return the folders of two candidates under one mask, their parent, and a dense model."""
    root = tmp_path_factory.mktemp("models")
    mask = torch.rand(16, 1, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    for seed, name in enumerate(("c0", "c1", "parent", "dense")):
        torch.manual_seed(seed)
        state = build("resnet8", 3, 1).state_dict()
        first = next(key for key, value in state.items() if value.shape == mask.shape)
        masks = {} if name == "dense" else {first: mask}
        state = {key: value * masks.get(key, 1) for key, value in state.items()}
        write(root / name, Checkpoint(state, masks, META), data, CPU)
    return [root / name for name in ("c0", "c1", "parent", "dense")]


def inputs(folders, data, **more) -> MergeInputs:
    return MergeInputs(folders[:2], data, CPU, **more)


def test_a_candidate_scores_as_a_soup_what_it_scored_alone(folders, data):
    given = inputs(folders, data, dense=folders[3])
    for i, each in enumerate(given.candidates):
        assert given.score(each) == given.scores[i]
        for objective in (given.loss, given.distillation):
            assert objective.value(each) == pytest.approx(objective.candidate_losses[i], rel=1e-5)
        assert given.loss.candidate_losses[i] == pytest.approx(
            read_json(folders[i] / "metrics.json")["val_loss"]
        )


def test_a_stored_network_has_the_statistics_of_images_augmented_as_in_its_training(
    folders, data, tmp_path
):
    stored, meta = read(folders[0]), META | {"augmentation": {"crop_padding": 2}}
    write(tmp_path / "out", replace(stored, meta=meta), data, CPU)
    found, expected = network(read(tmp_path / "out")), network(stored)
    crops = Augmentation(crop_padding=2)
    reestimate(expected, data.train.images, data.mean, data.std, augmentation=crops)
    for (name, value), other in zip(found.named_buffers(), expected.buffers(), strict=True):
        assert torch.equal(value, other), name
    assert not torch.equal(found.bn1.running_mean, stored.state["bn1.running_mean"])


def test_a_score_that_is_no_number_is_refused(folders, data, monkeypatch):
    given = inputs(folders, data)
    measured = {given.task.metric: 0.5, "loss": float("nan")}
    monkeypatch.setattr(given.task, "measure", lambda *_: measured)
    with pytest.raises(UserError, match="NaN or infinity"):
        given.score(given.candidates[0])


def test_distillation_is_the_divergence_from_the_dense_model_up_to_its_entropy(folders, data):
    given = inputs(folders, data, dense=folders[3])
    stored = [load_tensors(folder / "predictions.safetensors")["val"] for folder in folders]
    dense = stored[3].softmax(1)
    entropy = cross_entropy(stored[3], dense)
    for alone, own in zip(given.distillation.candidate_losses, stored[:2], strict=True):
        divergence = kl_div(own.log_softmax(1), dense, reduction="batchmean")
        assert alone - float(entropy) == pytest.approx(float(divergence), abs=1e-6)


def test_slopes_depend_on_seed_and_step_and_on_nothing_before(folders, data):
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    slopes = inputs(folders, data, seed=1).loss.gradient
    first, second = slopes(weights, 0), slopes(weights, 1)
    assert torch.equal(slopes(weights, 0), first)
    assert not torch.equal(first, second)
    assert torch.equal(inputs(folders, data, seed=1).loss.gradient(weights, 0), first)
    assert not torch.equal(inputs(folders, data, seed=2).loss.gradient(weights, 0), first)


def slope(given: MergeInputs, weight: float, step: int) -> float:
    slopes = given.loss.gradient(torch.tensor([1 - weight, weight], dtype=torch.float64), step)
    return float(slopes[1] - slopes[0])


def central_difference(given: MergeInputs, weight: float, width: float) -> float:
    """Return the slope of the loss after re-estimation along the line between the candidates."""
    first, second = (each.state for each in given.candidates)

    def at(weight: float) -> float:
        state = {name: (1 - weight) * first[name] + weight * second[name] for name in first}
        return given.loss.value(replace(given.candidates[0], state=state))

    return (at(weight + width) - at(weight - width)) / (2 * width)


def test_slopes_lead_where_the_loss_after_re_estimation_falls(folders, data):
    """Against central differences of the loss whose BatchNorm statistics are the training set's.

    Training and validation images are the same here, and so few that each step sees them all. What
    is left is that re-estimation takes unbiased variances, and the kinks of ReLU.
    """
    given = inputs(folders, replace(data, train=data.val))
    for weight in (0.3, 0.7):
        measured = central_difference(given, weight, 1e-3)
        assert slope(given, weight, 0) == pytest.approx(measured, rel=0.2)


def test_slopes_of_networks_trained_with_crops_have_the_statistics_of_crops(folders, data):
    """As above, over the draws of 12 steps; statistics of plain images too have other slopes."""
    given = inputs(folders, replace(data, val=data.train))
    meta = META | {"augmentation": {"crop_padding": 2}}
    given.candidates = [replace(each, meta=meta) for each in given.candidates]
    for weight in (0.3, 0.5):
        mean = sum(slope(given, weight, step) for step in range(12)) / 12
        assert mean == pytest.approx(central_difference(given, weight, 1e-2), rel=0.15)


@pytest.mark.parametrize("rule", rules.names())
def test_every_rule_merges_them_twice_alike_and_keeps_them_as_they_are(rule, folders, data):
    soups = []
    for _ in range(2):
        given = inputs(folders, data, parent=folders[2], dense=folders[3], seed=3)
        asked = {name: getattr(given, name) for name in rules.required_inputs(rule)}
        soups.append(rules.load(rule).merge(given.candidates, **asked))
        for folder, each in zip(folders, given.candidates, strict=False):
            stored = read(folder).state
            assert all(torch.equal(stored[name], each.state[name]) for name in stored)
    one, other = soups
    assert (one.weights, one.trials, one.reason) == (other.weights, other.trials, other.reason)
    for name, tensor in one.checkpoint.state.items():
        assert torch.equal(tensor, other.checkpoint.state[name])
    ((name, mask),) = one.checkpoint.masks.items()
    assert not one.checkpoint.state[name][~mask].any()
    network(one.checkpoint)


@pytest.mark.parametrize("rule", rules.names())
def test_every_rule_refuses_candidates_of_other_masks(rule, folders, data):
    given = MergeInputs(folders[::3], data, CPU, parent=folders[2], dense=folders[3])
    with pytest.raises(UserError, match="candidates 0 and 1 differ in the mask"):
        rules.load(rule).merge(
            given.candidates, **{name: getattr(given, name) for name in rules.required_inputs(rule)}
        )


def test_a_model_that_was_not_given_is_asked_for(folders, data):
    given = inputs(folders, data)
    for name, flag in {"parent": "parent", "distillation": "dense"}.items():
        with pytest.raises(UserError, match=f"give its folder as --{flag}"):
            getattr(given, name)


ONE_AT_A_TIME = ["uniform", "greedy", "wise", "model_stock"]


@pytest.mark.parametrize("rule", ONE_AT_A_TIME)
def test_of_many_candidates_the_tensors_of_few_are_in_memory(rule, folders, data, monkeypatch):
    """Eight candidates' tensors are handed out one by one; whoever keeps them all holds eight."""
    held, most = {}, 0

    def track(tensor: Tensor) -> Tensor:
        nonlocal most
        held[id(tensor)] = tensor.numel()
        most = max(most, sum(held.values()))
        weakref.finalize(tensor, held.pop, id(tensor))
        return tensor

    def reading(path: Path, *names: object) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors, metadata = tensors_of(path, *names)
        return {name: track(tensor) for name, tensor in tensors.items()}, metadata

    tensors_of = checkpoint.read
    monkeypatch.setattr(checkpoint, "read", reading)
    given = MergeInputs(folders[:2] * 4, data, CPU, parent=folders[2])
    asked = {name: getattr(given, name) for name in rules.required_inputs(rule)}
    soup = rules.load(rule).merge(given.candidates, **asked).checkpoint
    assert 0 < most < 2 * sum(tensor.numel() for tensor in soup.state.values())


@pytest.mark.parametrize("rule", rules.names())
def test_candidates_in_memory_have_the_same_soup_as_candidates_on_disk(rule, folders, data):
    given = inputs(folders, data, parent=folders[2], dense=folders[3], seed=3)
    asked = {name: getattr(given, name) for name in rules.required_inputs(rule)}
    module = rules.load(rule)
    one = module.merge(given.candidates, **asked)
    other = module.merge([read(folder) for folder in folders[:2]], **asked)
    assert (one.weights, one.reason, one.trials) == (other.weights, other.reason, other.trials)
    for name, tensor in one.checkpoint.state.items():
        assert torch.equal(tensor, other.checkpoint.state[name])
