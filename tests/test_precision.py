"""Mixed precision: asked for by one key, the same weights pruned, and nothing kept in bfloat16."""

from argparse import ArgumentParser
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pipeline.data.base import IGNORE, Dataset, Split
from pipeline.models.build import build as network
from pipeline.plan.dvc_yaml import command
from pipeline.sparsify.base import SparsifyConfig
from pipeline.sparsify.build import build, names
from pipeline.stagekit.training_flags import add_training_flags
from pipeline.stagekit.training_flags import settings as settings_of_flags
from pipeline.train.loop import Hook, Settings, train
from pipeline.train.swa import AverageEpochs
from tests.test_loop import dataset, random_masks, small
from tests.test_plan import plan

BF16 = Settings(16, 5e-4, clip_norm=1.0, precision="bf16")
TRAINING = {"pretrain", "retrain", "sparsify"}


class Look(Hook):
    """Looks at what flows through the first layer, and at the weights after every step."""

    def __init__(self, masks: dict[str, Tensor]) -> None:
        self.masks, self.flows, self.steps = masks, set(), 0

    def on_train_start(self, model: nn.Module) -> None:
        model[0].register_forward_hook(
            lambda layer, _, y: self.flows.add((layer.training, y.dtype))
        )

    def on_gradients(self, model: nn.Module, step: int) -> None:
        assert step == self.steps + 1
        assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}

    def on_step_end(self, model: nn.Module, step: int) -> None:
        self.steps = step
        assert {value.dtype for value in model.state_dict().values()} <= {
            torch.float32,
            torch.int64,
        }
        for name, mask in self.masks.items():
            pruned = model.get_parameter(name)[~mask]
            assert not pruned.any()
            assert not pruned.signbit().any()


def test_pruned_weights_stay_positive_zero_and_the_rest_is_kept_in_float32():
    """Training computes in bfloat16, validation in float32."""
    model = small()
    look = Look(random_masks(model))
    train(model, dataset(), BF16, [0.1] * 12, seed=0, masks=look.masks, hooks=[look])
    assert look.steps == 12
    assert look.flows == {(True, torch.bfloat16), (False, torch.float32)}


@pytest.mark.parametrize("method", names())
def test_methods_that_prune_while_training_prune_exactly(method):
    model, goal = (
        small(),
        SparsifyConfig(
            0.5,
            epochs=4,
            pruning_steps=2,
            mask_interval=2,
            str_init=-3.0,
            dst_alpha=0.1,
            rigl_interval=3,
            epoch_steps=4,
        ),
    )
    hook = build(method, goal)
    train(model, dataset(), BF16, [0.05] * 12, seed=0, hooks=[hook])
    for name, mask in hook.masks.items():
        weight = model.get_parameter(name)
        assert weight.dtype == torch.float32
        assert not weight[~mask].any()
        assert not weight[~mask].signbit().any()
    kept = sum(int(mask.sum()) for mask in hook.masks.values())
    total = sum(mask.numel() for mask in hook.masks.values())
    assert kept == total / 2 if method not in {"dst", "str"} else 0 < kept <= total


def test_an_average_of_epochs_keeps_the_masks():
    model = small()
    masks = random_masks(model)
    train(model, dataset(), BF16, [0.05] * 8, seed=0, masks=masks, hooks=[AverageEpochs(0.0, 2)])
    for name, mask in masks.items():
        assert torch.equal(model.get_parameter(name) != 0, mask)


def pictures(labels: Tensor) -> Dataset:
    """Return images of 16 pixels with a map of labels each."""
    data = dataset()
    images = torch.randint(256, (8, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    split = Split(images.to(torch.uint8), labels)
    return replace(data, train=split, val=split, mean=torch.full((3,), 0.5), std=torch.ones(3))


def sentences(tokens: Tensor) -> Dataset:
    """Return sentences of 6 tokens, each its own translation."""
    split = Split(torch.stack([tokens, tokens], 1), tokens)
    return replace(dataset(), train=split, val=split, mean=torch.zeros(0), std=torch.zeros(0))


@pytest.mark.parametrize("name", ["resnet8", "pspnet_small", "t5tiny"])
def test_every_task_trains_as_in_float32(name):
    generator = torch.Generator().manual_seed(0)
    if name == "resnet8":
        data, channels = dataset(), 1
    elif name == "pspnet_small":
        labels = torch.randint(3, (8, 16, 16), generator=generator)
        labels[:, :2] = IGNORE
        data, channels = pictures(labels), 3
    else:
        pytest.importorskip("transformers")
        data, channels = sentences(torch.randint(2, 20, (8, 6), generator=generator)), 2
    losses = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        model = network(name, 20 if name == "t5tiny" else 3, channels)
        settings = Settings(4, 0.0, precision=precision)
        history = train(model, data, settings, [0.001] * 4, seed=0)
        losses.append([row["loss"] for row in history])
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert losses[1] != losses[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_precision_is_told_to_whatever_trains_and_to_nothing_else(precision):
    own = plan().params.pretrain.model_dump()
    of = plan(methods=["sms", "gmp", "dpf_sms"], pretrain=own | {"precision": precision})
    told = {(node.script, "--precision bf16" in command(node)) for node in of.nodes.values()}
    assert {script for script, _ in told} > TRAINING
    for script, has in told:
        assert has == (script in TRAINING and precision == "bf16"), script


@pytest.mark.parametrize(
    ("key", "value", "flag"),
    [("compile", True, "--compile"), ("deterministic", False, "--nondeterministic")],
)
def test_how_to_compute_is_told_to_whatever_trains_where_it_is_not_the_default(key, value, flag):
    own = plan().params.pretrain.model_dump()
    for chosen in (own[key], value):
        of = plan(methods=["sms", "gmp", "dpf_sms"], pretrain=own | {key: chosen})
        told = {(node.script, flag in command(node)) for node in of.nodes.values()}
        assert {script for script, _ in told} > TRAINING
        assert all(has == (script in TRAINING and chosen == value) for script, has in told)
    settings = settings_of([flag])
    assert getattr(settings, key) == value
    assert replace(settings, **{key: own[key]}) == settings_of([])


def settings_of(flags: list[str]) -> Settings:
    parser = ArgumentParser()
    add_training_flags(parser)
    needed = ["--epochs", "1", "--batch-size", "16", "--weight-decay", "0", "--seed", "0"]
    return settings_of_flags(parser.parse_args(needed + flags))
