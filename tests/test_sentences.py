"""Sentences: padding is left out of the loss, and of batches where it can be."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from pipeline.data.base import IGNORE
from pipeline.tasks.base import load as load_task
from pipeline.train.batches import bucket_by_length


def cross_entropy_of_all(scores, labels, smoothing):
    return cross_entropy(scores, labels, label_smoothing=smoothing, ignore_index=IGNORE)


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
    for function in (cross_entropy_of_all, load_task("translation").loss):
        own = scores.detach().clone().requires_grad_()
        loss = function(own, labels, smoothing=0.1)
        loss.backward()
        losses.append(loss.detach())
        slopes.append(own.grad)
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(slopes[1], slopes[0])
    right = load_task("translation").correct(scores, labels)
    assert right == (scores.argmax(1) == labels).sum()


@given(st.integers(0, 2**32), st.integers(1, 400), st.integers(1, 5))
def test_sentences_of_like_length_share_a_batch(seed, count, size):
    source = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 30, (count,), generator=source)
    order = torch.randperm(count, generator=source)
    size = min(size, count)
    whole = count // size * size
    regrouped = bucket_by_length(order, lengths, size, source)
    assert regrouped.sort()[0].equal(order[:whole].sort()[0]), "who is left out is chance"

    def padding(order):
        batches = lengths[order].view(-1, size)
        return int((batches.max(1)[0][:, None] - batches).sum())

    assert padding(regrouped) <= padding(order[:whole])


def test_batches_come_in_no_order_of_length():
    lengths = torch.arange(100).repeat(4)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    means = (
        lengths[bucket_by_length(order, lengths, 4, torch.Generator().manual_seed(1))]
        .view(-1, 4)
        .float()
    )
    falls = (means.mean(1).diff() < 0).float().mean()
    assert 0.3 < falls < 0.7
