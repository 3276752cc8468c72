"""Parameters, multiply-accumulates and theoretical speed-up, counted by hand."""

import pytest
import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.evaluate.cost import cost, macs


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 10), 8 * 10 * 10 * 3 * 9),
        (nn.Conv2d(3, 8, 3), (3, 10, 10), 8 * 8 * 8 * 3 * 9),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 9, 9), 8 * 5 * 5 * 3 * 9),
        (nn.Conv2d(8, 16, 3, groups=4), (8, 6, 6), 16 * 4 * 4 * (8 // 4) * 9),
        (nn.Conv2d(8, 8, 5, groups=8, padding=2), (8, 6, 6), 8 * 6 * 6 * 25),
        (nn.Conv2d(3, 8, 3, dilation=2), (3, 10, 10), 8 * 6 * 6 * 3 * 9),
        (nn.Conv2d(3, 8, (1, 5)), (3, 4, 9), 8 * 4 * 5 * 3 * 5),
        (nn.Conv1d(4, 6, 3), (4, 12), 6 * 10 * 4 * 3),
        (nn.Linear(7, 5, bias=False), (7,), 35),
        (nn.Linear(7, 5), (4, 7), 4 * 35),
    ],
    ids=repr,
)
def test_macs_of_one_layer(layer, shape, expected):
    assert macs(nn.Sequential(layer), torch.zeros(1, *shape)) == {"0": expected}


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)
        self.idle = nn.Linear(9, 9)

    def forward(self, x):
        x = self.norm(self.conv(self.conv(x)[..., ::2, ::2]))
        return self.head(x.mean((2, 3)))


def test_a_layer_called_twice_counts_both_sizes_and_an_idle_one_none():
    once = 4 * 4 * 9
    assert macs(Twice(), torch.zeros(1, 4, 8, 8)) == {"conv": once * (64 + 16), "head": 8}


def test_the_count_leaves_the_network_as_it_was():
    model = Twice().train()
    model.head.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    macs(model, torch.zeros(1, 4, 8, 8))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
    assert model.norm.training
    assert not model.head.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_failed_pass_takes_its_hooks_away():
    model = Twice()
    with pytest.raises(RuntimeError):
        macs(model, torch.zeros(1, 3, 8, 8))
    assert not any(module._forward_hooks for module in model.modules())


def test_speedup_weighs_each_layer_s_macs_by_what_is_kept():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 3)
    )
    conv, linear = torch.zeros(2, 1, 3, 3, dtype=torch.bool), torch.ones(3, 32, dtype=torch.bool)
    conv.view(-1)[:6] = True  # a third of 18
    linear[0, :24] = False  # 24 of 96
    found = cost(model, {"0.weight": conv, "3.weight": linear}, torch.zeros(1, 1, 4, 4))
    dense = 2 * 16 * 9, 3 * 32
    sparse = dense[0] * 6 / 18 + dense[1] * 72 / 96
    assert found["macs"] == sum(dense)
    assert found["sparse_macs"] == pytest.approx(sparse)
    assert found["speedup"] == pytest.approx(sum(dense) / sparse)
    assert found["parameters"] == 18 + 2 + 4 + 96 + 3
    assert found["nonzeros"] == found["parameters"] - 12 - 24
    assert found["layers"]["0"] == {"macs": 288, "weights": 18, "sparsity": pytest.approx(2 / 3)}
    assert found["layers"]["3"] == {"macs": 96, "weights": 96, "sparsity": 0.25}


def test_a_dense_network_is_as_fast_as_itself():
    found = cost(Twice(), {}, torch.zeros(1, 4, 8, 8))
    assert found["speedup"] == 1
    assert found["nonzeros"] == found["parameters"]
    assert [layer["sparsity"] for layer in found["layers"].values()] == [0, 0]


def test_sparsity_in_a_large_image_saves_more_than_in_a_small_one():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)
    )
    masks = {"0.weight": torch.tensor([True, False, False, False]).view(4, 1, 1, 1)}
    found = [cost(model, masks, torch.zeros(1, 1, side, side))["speedup"] for side in (1, 4, 64)]
    assert found == pytest.approx([20 / 17, 80 / 32, (4 * 64**2 + 16) / (64**2 + 16)])


def test_a_network_without_weights_is_refused():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(UserError, match="target_sparsity"):
        cost(model, {"0.weight": torch.zeros(2, 2, dtype=torch.bool)}, torch.zeros(1, 2))
