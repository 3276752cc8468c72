"""LearnedSoup: the convex combination of least validation loss (Wortsman et al., 2022a)."""

from collections.abc import Sequence
from typing import Any

import torch

from pipeline.averaging import check
from pipeline.soup.base import Objective, Soup, weighted_average
from pipeline.storage.checkpoint import Checkpoint

STEPS = 50
RATE = 0.2


def merge(candidates: Sequence[Checkpoint], *, loss: Objective) -> Soup:
    """Return the LearnedSoup, whose coefficients minimise the validation loss.

        theta = sum_i softmax(z)_i theta_i,   z = argmin L_val(theta)

    The result is the least-loss one of: the learned combination, the mean, each single candidate.

    Raises:
        UserError: as `uniform.merge`.

    Source: Wortsman et al. 2022a, section 2 and appendix I; Sparse Model Soups, appendix A.2.
    """
    return minimise(candidates, loss, "validation loss")


def minimise(candidates: Sequence[Checkpoint], loss: Objective, loss_name: str) -> Soup:
    """Return the combination of least ``loss``; ``loss_name`` names it in the soup's reason."""
    check(candidates)
    m = len(candidates)
    single = [tuple(float(i == j) for j in range(m)) for i in range(m)]
    trials: list[dict[str, Any]] = [
        {"tried": f"candidate {i} alone", "weights": single[i], "loss": loss.candidate_losses[i]}
        for i in range(m)
    ]
    if m > 1:
        for tried, weights in {"learned": learn(loss, m), "uniform": (1 / m,) * m}.items():
            value = loss.value(weighted_average(candidates, weights))
            trials.append({"tried": tried, "weights": weights, "loss": value})
    best = min(
        reversed(trials), key=lambda trial: trial["loss"]
    )  # of equal losses the most even weights
    reason = (
        f"{best['tried']}: of {len(trials)} combinations the least {loss_name}, {best['loss']:.4f}"
    )
    return Soup(
        weighted_average(candidates, best["weights"]), best["weights"], reason, tuple(trials)
    )


def learn(loss: Objective, m: int) -> tuple[float, ...]:
    """Return the coefficients after a fixed number of Adam steps on z, from z = 0, the mean.

    With w = softmax(z), g = dL/dw:  dL/dz_i = w_i (g_i - sum_j w_j g_j).  The rate decays to 0.
    """
    z = torch.zeros(m, dtype=torch.float64)
    optimiser = torch.optim.Adam([z], lr=RATE)
    for step in range(STEPS):
        weights = z.softmax(0)
        gradient = loss.gradient(weights, step)
        z.grad = weights * (gradient - weights @ gradient)
        optimiser.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        optimiser.step()
    return tuple(z.softmax(0).tolist())
