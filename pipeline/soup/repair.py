"""REPAIR: the mean, its channels scaled to the candidates' statistics (Jordan et al., 2023)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.averaging import check
from pipeline.soup.base import Soup
from pipeline.soup.uniform import average
from pipeline.storage.checkpoint import Checkpoint

EPSILON = 1e-5  # that of BatchNorm, with which corrected activations are measured
Moments = dict[str, tuple[Tensor, Tensor]]


def merge(candidates: Sequence[Checkpoint], *, activations: Callable[..., Moments]) -> Soup:
    """Return the UniformSoup with the activations' statistics that its candidates have on average.

    In every layer with a weight W and a bias b, for each output channel, before the activation:

        mu* = (mu_1 + ... + mu_m) / m           sigma* = (sigma_1 + ... + sigma_m) / m
        W <- s W      b <- s (b - mu) + mu*      s = sigma* / sqrt(sigma^2 + epsilon)

    mu and sigma are those of the UniformSoup while its earlier layers are corrected. A channel is
    scaled as a whole, so pruned weights stay 0. A network with BatchNorm is left as it is: there
    the re-estimated statistics are the correction.

    Args:
        candidates: as of `uniform.merge`.
        activations: mean and variance of a network's activations on the training images, [C] each,
            by layer. Given goals, a mean and a standard deviation each, every layer is corrected to
            them in the same pass.

    Raises:
        UserError: as `uniform.merge`.

    Source: Jordan et al. 2023, REPAIR, section 3, with m networks for two.
    """
    check(candidates)
    m, soup = len(candidates), average(candidates)
    goals = _goals([activations(each) for each in candidates])
    state = dict(soup.state)
    for layer, (mean, variance) in (activations(soup, goals) if goals else {}).items():
        weight, bias = f"{layer}.weight", f"{layer}.bias"
        goal, deviation = goals[layer]
        scale = deviation / (variance + EPSILON).sqrt()
        state[weight] = state[weight] * scale.view(-1, *[1] * (state[weight].ndim - 1))
        state[bias] = (state[bias] - mean) * scale + goal
    for name, mask in soup.masks.items():
        state[name] = torch.where(mask, state[name], 0.0)  # a bias of a pruned filter, too
    corrected = (
        f"the activations of {len(goals)} layers have the candidates' statistics"
        if goals
        else "no layer is corrected: all have BatchNorm, or no bias"
    )
    reason = f"all {m} candidates, each alike; {corrected}"
    return Soup(Checkpoint(state, soup.masks, soup.meta), (1 / m,) * m, reason)


def _goals(moments: Sequence[Moments]) -> Moments:
    """Return the mean over the networks of each channel's mean and standard deviation."""
    return {
        layer: (
            torch.stack([each[layer][0] for each in moments]).mean(0),
            torch.stack([each[layer][1].sqrt() for each in moments]).mean(0),
        )
        for layer in moments[0]
    }
