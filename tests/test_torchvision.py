"""All of torchvision's classifiers: what is prunable, what is counted, a mask and a merge each."""

from collections import defaultdict

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models
from torchvision.models.regnet import BlockParams

from pipeline.channels.products import WEIGHTLESS, macs
from pipeline.evaluate.cost import cost
from pipeline.models.build import build
from pipeline.prune.apply import prune
from pipeline.prune.prunable import check_network, prunable
from pipeline.soup.uniform import average
from pipeline.storage.checkpoint import Checkpoint, sparsity

pytestmark = pytest.mark.slow

# By torchvision's module, the smallest network last.
FAMILIES: dict[str, list[str]] = defaultdict(list)
for name in models.list_models(module=models):
    FAMILIES[models.get_model_builder(name).__module__.rpartition(".")[2]].append(name)
# Parameters of two or more axes that no convolution or linear operation reads.
OTHERS = ("token", "pos_embedding", "bias_table", "layer_scale", "logit_scale")


def example(name: str) -> Tensor:
    size = 299 if name == "inception_v3" else 224
    return torch.zeros(1, 3, size, size)


@pytest.fixture
def on_meta(monkeypatch):
    """Build networks without memory; RegNet works out its widths with tensors, which need some."""
    widths = BlockParams.from_init_params

    def real(*args, **kwargs):
        with torch.device("cpu"):
            return widths(*args, **kwargs)

    monkeypatch.setattr(BlockParams, "from_init_params", real)

    def make(name: str) -> nn.Module:
        with torch.device("meta"):
            return build(f"torchvision.{name}", 1000)

    return make


def flops(model: nn.Module, image: Tensor) -> tuple[int, int]:
    """Return PyTorch's own count of floating-point operations: all, and of batched products."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model.eval()(image)
    torch.backends.mha.set_fastpath_enabled(fast)
    batched = counter.get_flop_counts()["Global"].get(torch.ops.aten.bmm, 0)
    return counter.get_total_flops(), batched


def matrices(model: nn.Module) -> set[str]:
    """Return all parameters of two or more axes but those that are only added or looked up."""
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and not any(other in name for other in OTHERS)
    }


def narrowed(model: nn.Module) -> nn.Module:
    """Return the network with 64 in place of 4,096 features in its classifier (AlexNet, VGG)."""
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Linear) and 4096 in (layer.in_features, layer.out_features):
                sizes = (64 if n == 4096 else n for n in (layer.in_features, layer.out_features))
                setattr(parent, name, nn.Linear(*sizes))
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_is_prunable_and_every_product_is_counted(family, on_meta):
    for name in FAMILIES[family]:
        model, image = on_meta(name), example(name).to("meta")
        weights = prunable(model)
        assert set(weights) == matrices(model), name
        counts = macs(model, image)
        total, batched = flops(model, image)
        assert 2 * sum(counts.values()) == total, name
        assert 2 * counts.get(WEIGHTLESS, 0) == batched, name
        used = counts.keys() - {WEIGHTLESS}
        assert used == {weight.removesuffix(".weight") for weight in weights}, name


@pytest.mark.parametrize("family", FAMILIES)
def test_one_mask_and_one_merge_for_each_family(family, on_meta):
    def size(name: str) -> int:
        return sum(parameter.numel() for parameter in on_meta(name).parameters())

    name = min(FAMILIES[family], key=size)
    model = narrowed(build(f"torchvision.{name}", 10))
    check_network(model, example(name))
    names, parameters = prunable(model), [key for key, _ in model.named_parameters()]
    parent = Checkpoint(model.state_dict(), {}, {"sparsity": 0.0})
    pruned, metrics = prune(parent, names, 0.9, allocation="uniform", parameters=parameters)
    assert metrics["sparsity"] == pytest.approx(0.9, abs=1e-5)
    copies = [
        Checkpoint(
            {key: value * (scale if key in names else 1) for key, value in pruned.state.items()},
            pruned.masks,
            pruned.meta,
        )
        for scale in (0.5, 2)
    ]
    soup = average(copies)
    assert sparsity(soup, names) == metrics["sparsity"]
    for key in names:
        assert torch.equal(soup.state[key], 1.25 * pruned.state[key]), key
        assert not soup.state[key][~soup.masks[key]].any(), key
    model.load_state_dict(soup.state)
    total, batched = (count / 2 for count in flops(model, example(name)))
    assert cost(model, soup.masks, example(name))["speedup"] == pytest.approx(
        total / (0.1 * (total - batched) + batched), rel=1e-2
    )
