"""The slopes towards each candidate are the derivatives by its coefficient, less a constant."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, log_softmax

from pipeline.train.coefficient_gradient import slopes


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.9), nn.Linear(12, 4),
    ).double()  # fmt: skip


def case(extra: int = 0):
    """Return three ends of one network, coefficients, and a batch with ``extra`` more images."""
    generator = torch.Generator().manual_seed(1)
    shapes = [each.shape for each in network().parameters()]
    ends = [
        [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        for _ in range(3)
    ]
    images = torch.randn(8 + extra, 1, 4, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (8,), generator=generator)
    return ends, torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), images, labels


def loss_at(ends, weights, images, targets, cross_entropy):
    """Return the loss, another way: one graph from the coefficients, in training mode."""
    model = network()
    model[4] = nn.Identity()
    names = [name for name, _ in model.named_parameters()]
    mixed = [
        sum(w * e for w, e in zip(weights, each, strict=True)) for each in zip(*ends, strict=True)
    ]
    outputs = functional_call(model.train(), dict(zip(names, mixed, strict=True)), (images,))
    logits = outputs[: len(targets)]
    if targets.is_floating_point():
        return -(targets * log_softmax(logits, 1)).sum(1).mean()
    return cross_entropy(logits, targets)


@pytest.mark.parametrize("extra", [0, 5])
@pytest.mark.parametrize("soft", [False, True])
def test_are_the_derivatives_by_the_coefficients(extra: int, soft: bool) -> None:
    ends, weights, images, targets = case(extra)
    if soft:
        targets = torch.randn(8, 4, dtype=torch.float64).softmax(1)
    found = slopes(network(), ends, weights, images, targets, cross_entropy)
    at = weights.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss_at(ends, at, images, targets, cross_entropy), at)
    torch.testing.assert_close(found - found.mean(), expected - expected.mean())
    assert abs(float(weights @ found)) < 1e-12, "the constant is that of the slope to itself"


def test_are_what_a_small_step_towards_an_end_changes() -> None:
    ends, weights, images, targets = case(extra=5)
    found = slopes(network(), ends, weights, images, targets, cross_entropy)
    for i in range(3):
        step = 1e-5 * (torch.eye(3, dtype=torch.float64)[i] - weights)
        ahead = loss_at(ends, weights + step, images, targets, cross_entropy)
        behind = loss_at(ends, weights - step, images, targets, cross_entropy)
        assert float(found[i]) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-5)


def test_leave_the_modes_as_they_were() -> None:
    ends, weights, images, targets = case()
    model = network().train()
    model[1].eval()
    before = [module.training for module in model.modules()]
    slopes(model, ends, weights, images, targets, cross_entropy)
    assert [module.training for module in model.modules()] == before


def test_frozen_and_unused_parameters_have_no_slope() -> None:
    ends, weights, images, targets = case()
    expected = slopes(network(), ends, weights, images, targets, cross_entropy)
    model = network()
    model.unused = nn.Linear(2, 2).double()
    model.frozen = nn.Parameter(torch.zeros(2, dtype=torch.float64), requires_grad=False)
    model.forward = nn.Sequential(*list(model)[:6]).forward
    ends = [[model.frozen.detach(), *end, *map(torch.zeros_like, model.unused.parameters())]
            for end in ends]  # fmt: skip
    found = slopes(model, ends, weights, images, targets, cross_entropy)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
