"""Leaving padding out changes neither the loss nor its gradient."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from pipeline.data.base import IGNORE
from pipeline.train.positions import counted_positions


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 6), st.booleans())
def test_loss_and_gradient_are_those_of_all_positions(seed, sentences, tokens, tokens_first):
    source = torch.Generator().manual_seed(seed)
    scores = torch.randn(sentences, 5, tokens, generator=source, dtype=torch.float64)
    if tokens_first:  # the order in memory that a network with a linear classifier gives
        scores = scores.transpose(1, 2).contiguous().transpose(1, 2)
    labels = torch.randint(5, (sentences, tokens), generator=source)
    labels[torch.rand(labels.shape, generator=source) < 0.5] = IGNORE
    labels[0, 0] = 3
    losses, slopes = [], []
    for pick in (lambda *sides: sides, counted_positions):
        own = scores.detach().clone().requires_grad_()
        loss = cross_entropy(*pick(own, labels), label_smoothing=0.1)
        loss.backward()
        losses.append(loss.detach())
        slopes.append(own.grad)
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(slopes[1], slopes[0])
    rows, own = counted_positions(scores, labels)
    assert rows.shape == (int((labels >= 0).sum()), 5)
    assert (own >= 0).all()


def test_labels_of_images_stay_as_they_are():
    for places in ((), (3, 4)):
        scores, labels = torch.zeros(2, 5, *places), torch.full((2, *places), IGNORE)
        rows, own = counted_positions(scores, labels)
        assert rows is scores
        assert own is labels
