"""timm: any classes and channels, prunable, retrained under a mask, refused in one sentence."""

import sys

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from pipeline.config import members
from pipeline.data.base import Dataset, Split
from pipeline.errors import UserError
from pipeline.models.build import build
from pipeline.prune.apply import prune
from pipeline.prune.prunable import check_network, prunable
from pipeline.storage.checkpoint import Checkpoint
from pipeline.train.batchnorm import reestimate
from pipeline.train.loop import train
from pipeline.train.settings import Settings
from pipeline.train.sync_batchnorm import synchronise

# BatchNorm and activation in one layer (mobilenetv3), attention (test_vit), LayerNorm (convnext).
NETWORKS = ["resnet10t", "mobilenetv3_small_050", "test_vit", "test_convnext"]


def images(count: int, size: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def data(size: int, channels: int) -> Dataset:
    split = Split(images(16, size, channels), torch.arange(16) % 5)
    mean, std = torch.full((channels,), 0.5), torch.full((channels,), 0.3)
    return Dataset(split, split, split, tuple("abcde"), mean, std, {})


@pytest.mark.extras
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_pruned_and_retrained_under_its_mask(name):
    size, channels = (160, 3) if name == "test_vit" else (32, 1)
    torch.manual_seed(0)
    model = build(f"timm.{name}", 5, channels)
    assert model(torch.rand(2, channels, size, size)).shape == (2, 5)
    own = data(size, channels)
    check_network(model, own.train.images[:1])
    names, parameters = prunable(model), [key for key, _ in model.named_parameters()]
    parent = Checkpoint(model.state_dict(), {}, {"sparsity": 0.0})
    pruned, metrics = prune(parent, names, 0.9, parameters=parameters)
    assert metrics["sparsity"] == pytest.approx(0.9, abs=1e-4)
    model.load_state_dict(pruned.state)
    train(model, own, Settings(8, 5e-4), [0.01] * 2, seed=0, masks=pruned.masks)
    state = model.state_dict()
    for key in names:
        assert not state[key][~pruned.masks[key]].any(), key
    assert not torch.equal(state[names[0]], pruned.state[names[0]]), "it learns"


@pytest.mark.extras
def test_batchnorm_with_its_activation_is_re_estimated():
    """One batch, so that the mean over batches is PyTorch's own."""
    own = data(32, 3)
    ours, theirs = build("timm.mobilenetv3_small_050", 5), build("timm.mobilenetv3_small_050", 5)
    theirs.load_state_dict(ours.state_dict())
    reestimate(ours, own.train.images, own.mean, own.std, 16)
    batch = (own.train.images.float() / 255 - 0.5) / 0.3
    dropouts = [module for module in theirs.modules() if isinstance(module, nn.Dropout)]
    assert not dropouts
    update_bn([batch], theirs)
    for (key, one), other in zip(
        ours.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.extras
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm.resnet10", ["timm.resnet10t"]),
        ("timm.resnet50.a1_in1k", ["does not exist", "timm.resnet50"]),
        ("timm.nf_regnet_b0", ["standardises its weights"]),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(name, words):
    with pytest.raises(UserError) as error:
        build(name, 5)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"install it with pip install -e '\.\[timm\]'"):
        build("timm.resnet10t", 5)
    monkeypatch.setattr(members, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"network\.name is 'timm\..*install -e '\.\[timm\]'"):
        members.check("models", "timm.resnet10t")


def test_several_processes_refuse_a_batchnorm_that_does_more():
    """PyTorch would replace it by its SyncBatchNorm, and the activation would be gone."""

    class NormAndActivation(nn.BatchNorm2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
            return super().forward(input).relu()

    model = nn.Sequential(nn.Conv2d(1, 4, 3), NormAndActivation(4))
    with pytest.raises(UserError, match=r"layer 1 is a NormAndActivation.*SMS_GPUS_PER_STAGE"):
        synchronise(model, torch.device("cpu"))
    assert isinstance(model[1], NormAndActivation)
