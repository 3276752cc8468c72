"""SWA: the mean of the epoch ends it is asked for, exactly, under the mask; and its rates."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pipeline.errors import UserError
from pipeline.schedules.pretrain_lr import swa_rates
from pipeline.train.loop import Hook, Settings, steps_per_epoch, train
from pipeline.train.swa import AverageEpochs
from tests.test_loop import dataset, random_masks, resnet

SETTINGS = Settings(batch_size=16, weight_decay=5e-4)
EPOCHS = 4


class EpochEnds(Hook):
    """Remembers the weights after each epoch."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:  # noqa: ARG002
        self.weights.append({n: p.detach().clone() for n, p in model.named_parameters()})


def retrained(start: float) -> tuple[nn.Module, EpochEnds, dict[str, Tensor]]:
    """Train for four epochs, averaging from ``start`` on."""
    model, ends, data = resnet(), EpochEnds(), dataset()
    masks = random_masks(model)
    rates = [0.05] * EPOCHS * steps_per_epoch(len(data.train), SETTINGS.batch_size)
    hooks = [ends, AverageEpochs(start, EPOCHS)]
    train(model, data, SETTINGS, rates, seed=3, masks=masks, hooks=hooks)
    return model, ends, masks


@pytest.mark.parametrize(
    ("start", "first"), [(0.0, 0), (0.25, 1), (0.5, 2), (0.6, 2), (0.75, 3), (0.99, 3)]
)
def test_the_result_is_the_mean_of_the_epoch_ends_after_the_start(start, first):
    model, ends, masks = retrained(start)
    taken = ends.weights[first:]
    for name, weight in model.named_parameters():
        exact = sum(end[name].double() for end in taken) / len(taken)
        assert torch.allclose(weight.double(), exact, rtol=1e-6, atol=1e-9)
        if name in masks:
            pruned = weight[~masks[name]]
            assert torch.equal(pruned, torch.zeros_like(pruned))
            assert not pruned.signbit().any()


def test_one_epoch_is_itself_bit_by_bit():
    model, ends, _ = retrained(0.75)
    last = ends.weights[-1]
    assert all(torch.equal(weight, last[name]) for name, weight in model.named_parameters())


def test_it_is_what_torch_averages():
    model, hook = nn.Linear(3, 2), AverageEpochs(0.0, 5)
    theirs = AveragedModel(model)
    for epoch in range(1, 6):
        with torch.no_grad():
            for weight in model.parameters():
                weight.normal_(generator=torch.Generator().manual_seed(epoch))
        hook.on_epoch_end(model, epoch)
        theirs.update_parameters(model)
    hook.on_train_end(model)
    for own, other in zip(model.parameters(), theirs.module.parameters(), strict=True):
        assert torch.allclose(own, other, atol=1e-6)


def test_a_network_in_double_precision_is_averaged_too():
    model, hook = nn.Linear(1, 1, bias=False).double(), AverageEpochs(0.0, 2)
    for epoch, value in enumerate([1.0, 4.0], start=1):
        nn.init.constant_(model.weight, value)
        hook.on_epoch_end(model, epoch)
    hook.on_train_end(model)
    assert model.weight.item() == 2.5


@pytest.mark.parametrize("start", [-0.1, 1.0, float("nan")])
def test_a_start_out_of_range_is_refused(start):
    with pytest.raises(UserError, match=r"swa\.start"):
        AverageEpochs(start, 4)


# ---- its rates


def test_rates_settle_by_half_a_cosine():
    """20 steps, from the tenth on: two on the way from 1.0 down to 0.2, eight at 0.2."""
    assert swa_rates([1.0] * 20, 10, 0.2) == pytest.approx([1.0] * 11 + [0.6] + [0.2] * 8)


@given(
    rates=st.lists(st.floats(0, 1), min_size=1, max_size=60),
    where=st.floats(0, 0.999),
    level=st.floats(1e-4, 1),
)
def test_laws_of_settling(rates, where, level):
    start = int(where * len(rates))
    found = swa_rates(rates, start, level)
    assert len(found) == len(rates)
    assert found[:start] == rates[:start]
    anneal = len(rates) // 10
    assert all(rate == level for rate in found[start + anneal :])
    way = [*found[start : start + anneal], level]
    rising = level > rates[start]
    assert way == pytest.approx(sorted(way, reverse=not rising))
    if anneal and start < len(rates):
        assert found[start] == pytest.approx(rates[start])


def test_a_level_of_zero_is_refused():
    with pytest.raises(UserError, match=r"swa\.learning_rate"):
        swa_rates([0.1, 0.1], 1, 0.0)
