"""Curvature of the loss over the kept weights: largest eigenvalue and trace of the Hessian.

Only products of the Hessian with vectors are computed, each by differentiating twice (Pearlmutter
1994); the matrix never is.
"""

from collections.abc import Callable, Iterator
from math import sqrt

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor

from pipeline.errors import UserError
from pipeline.evaluate.kept_weights import KeptWeights

BASIS = 12  # Lanczos vectors between restarts; each is as large as the network
# The loss of every batch, with its share of the examples; the shares sum to 1.
Losses = Callable[[], Iterator[tuple[float, Tensor]]]


def gradient(losses: Losses, weights: KeptWeights) -> Tensor:
    """Return g = dL/dw of the mean loss L = sum_b share_b L_b, float64 [n] on the CPU."""
    total = torch.zeros(weights.count, dtype=torch.float64)
    for share, each in batch_gradients(losses, weights):
        total += share * each
    return total


def batch_gradients(losses: Losses, weights: KeptWeights) -> Iterator[tuple[float, Tensor]]:
    """Yield share and gradient of every batch, float64 [n] on the CPU."""
    for share, loss in losses():
        yield share, weights.flatten(_derivatives(loss, weights))


def hessian_vector(losses: Losses, weights: KeptWeights, vector: Tensor) -> Tensor:
    """Return H v = d<g, v>/dw over the kept weights, float64 [n] on the CPU.

    The Hessian is H = d^2 L / dw^2 of the mean loss, its rows and columns those of the kept
    weights.

    Args:
        losses: the loss of every batch as a function of ``weights.parameters``.
        weights: the coordinates.
        vector: v, float [n].
    """
    directions = weights.unflatten(vector)
    total = torch.zeros(weights.count, dtype=torch.float64)
    for share, loss in losses():
        gradients = _derivatives(loss, weights, again=True)
        slope = torch.stack([(g * v).sum() for g, v in zip(gradients, directions, strict=True)])
        total += share * weights.flatten(_derivatives(slope.sum(), weights))
    return total


def _derivatives(value: Tensor, weights: KeptWeights, *, again: bool = False) -> tuple[Tensor, ...]:
    """Return the derivatives by all parameters, 0 of unused ones; ``again``: to be derived."""
    options = {"create_graph": again, "allow_unused": True, "materialize_grads": True}
    return torch.autograd.grad(value, weights.parameters, None, **options)


def largest_eigenvalue(
    product: Callable[[Tensor], Tensor], size: int, *, seed: int, tolerance: float = 1e-2
) -> float:
    """Return the largest eigenvalue of a symmetric matrix that is known by its products.

    The implicitly restarted Lanczos method (ARPACK), from a random vector.

    Args:
        product: from v to H v, float64 [n].
        size: n.
        seed: of the first vector.
        tolerance: the relative accuracy at which the iteration ends.

    Raises:
        UserError: the iteration does not converge, as for products that are not finite.

    Source: Lehoucq, Sorensen & Yang 1998, ARPACK Users' Guide; Yao et al. 2020 (PyHessian).
    """
    if size < 3:  # ARPACK needs more dimensions than it looks for
        columns = [product(column).numpy() for column in torch.eye(size, dtype=torch.float64)]
        return float(np.linalg.eigvalsh(np.stack(columns))[-1])
    operator = LinearOperator(
        (size, size), matvec=lambda v: product(torch.from_numpy(v.ravel())).numpy(), dtype=float
    )
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(size, dtype=torch.float64, generator=generator).numpy()
    basis = min(BASIS, size)
    try:
        values = eigsh(
            operator, 1, which="LA", v0=start, ncv=basis, tol=tolerance, return_eigenvectors=False
        )
    except ArpackError as error:
        raise UserError(
            "the largest eigenvalue of the Hessian was not found: check that the network's loss "
            "is finite."
        ) from error
    return float(values[0])


def trace(
    product: Callable[[Tensor], Tensor], size: int, *, probes: int, seed: int
) -> tuple[float, float]:
    """Return Hutchinson's estimate of a symmetric matrix's trace, and its standard error.

        tr H = E[z^T H z], estimated by the mean over random signs z_1, ..., z_k in {-1, 1}^n

    Args:
        product: from v to H v, float64 [n].
        size: n.
        probes: k, at least 2.
        seed: of the signs.

    Source: Hutchinson 1990, A stochastic estimator of the trace of the influence matrix.
    """
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(probes):
        signs = 2.0 * torch.randint(2, (size,), generator=generator).double() - 1
        values.append(float(signs @ product(signs)))
    return float(np.mean(values)), float(np.std(values, ddof=1)) / sqrt(probes)
