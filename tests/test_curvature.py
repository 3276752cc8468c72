"""Curvature and gradient noise over kept weights, against explicit matrices of tiny networks."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from pipeline.data.base import Split
from pipeline.errors import UserError
from pipeline.evaluate.curvature import (
    batch_gradients,
    gradient,
    hessian_vector,
    largest_eigenvalue,
    trace,
)
from pipeline.evaluate.gradient_noise import gradient_noise
from pipeline.evaluate.kept_weights import KeptWeights
from pipeline.train.batch_losses import BatchLosses

MOMENTS = (torch.tensor([0.4]), torch.tensor([0.3]))
EXAMPLES = 30


def network() -> nn.Module:
    """Return a network of 61 weights with BatchNorm and dropout, in float64."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(12, 3),
    ).double()  # fmt: skip


def images() -> Split:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (EXAMPLES, 1, 3, 3), dtype=torch.uint8, generator=generator)
    return Split(pixels, torch.randint(0, 3, (EXAMPLES,), generator=generator))


class DoubleLosses(BatchLosses):
    """Batch losses of a float64 network."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        normalise = self.normalise
        self.normalise = lambda batch: normalise(batch).double()


class Explicit:
    """The loss of all batches as a function of one vector of kept weights, written down anew."""

    def __init__(self, model: nn.Module, masks: dict[str, Tensor], size: int) -> None:
        self.model, self.named = model, dict(model.named_parameters())
        ones = {name: torch.ones_like(p, dtype=torch.bool) for name, p in self.named.items()}
        self.masks, split = ones | masks, images()
        order = torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(7))
        pixels = (split.images.double() / 255 - MOMENTS[0].double()) / MOMENTS[1].double()
        self.batches = [(pixels[rows], split.labels[rows]) for rows in order.split(size)]
        self.point = torch.cat([p.detach()[self.masks[n]] for n, p in self.named.items()])

    def loss(self, vector: Tensor, batch: int) -> Tensor:
        state, done = {}, 0
        for name, parameter in self.named.items():
            mask = self.masks[name]
            entries = vector[done : done + int(mask.sum())]
            state[name] = parameter.detach().clone().masked_scatter(mask, entries)
            done += len(entries)
        x, labels = self.batches[batch]
        self.model.train()
        self.model[4].eval()  # no dropout
        return cross_entropy(functional_call(self.model, state, x), labels)

    def mean(self, vector: Tensor) -> Tensor:
        losses = [self.loss(vector, batch) for batch in range(len(self.batches))]
        return torch.stack(losses).mean()


@pytest.fixture(scope="module", params=[False, True], ids=["dense", "pruned"])
def both(request):
    """Return explicit losses, and ours with their coordinates, in three batches of ten."""
    model, masks = network(), {}
    if request.param:
        for name in ("0.weight", "5.weight"):
            weight = model.get_parameter(name)
            generator = torch.Generator().manual_seed(3)
            masks[name] = torch.rand(weight.shape, generator=generator) > 0.5
            weight.data *= masks[name]
    losses = DoubleLosses(model, images(), MOMENTS, cross_entropy, 10, 7)
    return Explicit(network_copy(model), masks, 10), losses, KeptWeights(model, masks)


def network_copy(model: nn.Module) -> nn.Module:
    copy = network()
    copy.load_state_dict(model.state_dict())
    return copy


def test_gradient_and_products_are_those_of_the_explicit_hessian(both):
    explicit, losses, weights = both
    assert weights.count == len(explicit.point)
    point = explicit.point.clone().requires_grad_()
    theirs = torch.autograd.grad(explicit.mean(point), point)[0]
    assert torch.allclose(gradient(losses, weights), theirs, rtol=1e-5, atol=1e-7)
    hessian = torch.autograd.functional.hessian(explicit.mean, explicit.point)
    generator = torch.Generator().manual_seed(5)
    vector = torch.randn(weights.count, dtype=torch.float64, generator=generator)
    product = hessian_vector(losses, weights, vector)
    assert torch.allclose(product, hessian @ vector, rtol=1e-4, atol=1e-6)


def test_eigenvalue_and_trace_are_those_of_the_explicit_hessian(both):
    """Within the iteration's tolerance; the trace within four of its standard errors."""
    explicit, losses, weights = both
    hessian = torch.autograd.functional.hessian(explicit.mean, explicit.point)
    product = partial(hessian_vector, losses, weights)
    largest = float(torch.linalg.eigvalsh(hessian)[-1])
    for seed in (0, 1):
        found = largest_eigenvalue(product, weights.count, seed=seed, tolerance=1e-4)
        assert found == pytest.approx(largest, rel=1e-3)
    estimate, error = trace(lambda v: hessian @ v, weights.count, probes=2000, seed=0)
    exact = float(hessian.trace())
    assert abs(estimate - exact) < 4 * error
    assert error < 0.1 * abs(exact)
    few, _ = trace(product, weights.count, probes=5, seed=0)
    same, _ = trace(lambda v: hessian @ v, weights.count, probes=5, seed=0)
    assert few == pytest.approx(same, rel=1e-4)


def test_noise_is_the_trace_of_the_explicit_covariance(both):
    explicit, losses, weights = both
    point = explicit.point.clone().requires_grad_()
    rows = [
        torch.autograd.grad(explicit.loss(point, batch), point)[0]
        for batch in range(len(explicit.batches))
    ]
    noise, squared = gradient_noise(each for _, each in batch_gradients(losses, weights))
    gradients = torch.stack(rows)
    assert noise == pytest.approx(float(torch.cov(gradients.T).trace()), rel=1e-4)
    assert squared == pytest.approx(float(gradients.mean(0).square().sum()), rel=1e-4)


@given(seed=st.integers(0, 2**20), size=st.integers(1, 9))
def test_the_largest_eigenvalue_of_any_symmetric_matrix(seed, size):
    """Not the largest in magnitude: of a negative definite matrix it is the one nearest to zero."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(size, size, dtype=torch.float64, generator=generator)
    matrix = matrix + matrix.T - 3 * torch.eye(size)
    found = largest_eigenvalue(lambda v: matrix @ v, size, seed=seed, tolerance=1e-8)
    assert found == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), abs=1e-6)


def test_an_eigenvalue_of_no_finite_products_is_refused():
    with pytest.raises(UserError, match="check that the network's loss is finite"):
        largest_eigenvalue(lambda v: v * torch.nan, 9, seed=0)


def test_weights_that_the_network_does_not_use_have_no_curvature():
    losses, weights = {}, {}
    for extra in (False, True):
        model = network()
        if extra:
            model.unused = nn.Linear(2, 2).double()
            model.forward = nn.Sequential(*list(model)[:6]).forward
        losses[extra] = DoubleLosses(model, images(), MOMENTS, cross_entropy, 10, 7)
        weights[extra] = KeptWeights(model, {})
    count, unused = weights[False].count, torch.zeros(6, dtype=torch.float64)
    vector = torch.linspace(-1, 1, count + 6, dtype=torch.float64)
    expected = gradient(losses[False], weights[False])
    assert torch.equal(gradient(losses[True], weights[True]), torch.cat([expected, unused]))
    expected = hessian_vector(losses[False], weights[False], vector[:count])
    found = hessian_vector(losses[True], weights[True], vector)
    assert torch.equal(found, torch.cat([expected, unused]))


@given(seed=st.integers(0, 2**20), probes=st.integers(2, 5))
def test_the_trace_of_a_diagonal_matrix_needs_no_luck(seed, probes):
    """z_i^2 = 1 for random signs, so that z^T D z is the trace for every z."""
    generator = torch.Generator().manual_seed(seed)
    diagonal = torch.randn(6, dtype=torch.float64, generator=generator)
    estimate, error = trace(lambda v: diagonal * v, 6, probes=probes, seed=seed)
    assert estimate == pytest.approx(float(diagonal.sum()), abs=1e-12)
    assert error == pytest.approx(0, abs=1e-12)


def test_the_network_is_left_as_it_was():
    """Running statistics, modes and gradients; and the order of examples follows the seed."""
    model = network().train()
    model[4].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = DoubleLosses(model, images(), MOMENTS, cross_entropy, 10, 7)
    weights = KeptWeights(model, {})
    hessian_vector(losses, weights, torch.ones(weights.count))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model] == [True, True, True, True, False, True]
    assert model[1].track_running_stats
    assert all(parameter.grad is None for parameter in model.parameters())
    again, other = (
        DoubleLosses(model, images(), MOMENTS, cross_entropy, 10, seed) for seed in (7, 8)
    )
    mine = [float(loss.detach()) for _, loss in losses()]
    assert mine == [float(loss.detach()) for _, loss in again()]
    assert mine != [float(loss.detach()) for _, loss in other()]
    shares = [share for share, _ in DoubleLosses(model, images(), MOMENTS, cross_entropy, 8, 0)()]
    assert shares == [8 / 30, 8 / 30, 7 / 30, 7 / 30]


def test_a_gradient_alone_has_no_noise():
    with pytest.raises(ValueError, match="two batches"):
        gradient_noise([torch.ones(2)])
