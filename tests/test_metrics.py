"""The measures of a classifier, against scikit-learn, SciPy and sums by hand."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, recall_score

from pipeline.data.base import Dataset, Groups, Split
from pipeline.errors import UserError
from pipeline.evaluate.classification import calibration_error, summary
from pipeline.evaluate.groups import group_recall
from pipeline.evaluate.intervals import wilson_interval
from pipeline.evaluate.metrics import accuracy, correct, ensemble, loss


def summed_up(logits, labels, groups=None):
    """Return the summary of four classes a to d."""
    split = Split(torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8), labels)
    data = Dataset(split, split, split, tuple("abcd"), torch.zeros(1), torch.ones(1), groups or {})
    return summary(logits, split, data)


@st.composite
def predictions(draw, classes=4):
    """Logits [N, K] and labels [N] in which every class occurs."""
    n = draw(st.integers(classes, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    logits = rng.normal(scale=3, size=(n, classes)).astype(np.float32)
    return torch.from_numpy(logits), torch.from_numpy(labels)


@given(predictions())
def test_accuracy_loss_and_recalls_are_those_of_scikit_learn(case):
    logits, labels = case
    y, predicted = labels.numpy(), logits.numpy().argmax(1)
    found = summed_up(logits, labels)
    recalls = recall_score(y, predicted, average=None)
    assert found["test_accuracy"] == pytest.approx(accuracy_score(y, predicted), abs=1e-12)
    assert found["test_macro_accuracy"] == pytest.approx(balanced_accuracy_score(y, predicted))
    assert found["test_loss"] == pytest.approx(log_loss(y, softmax(logits.double().numpy(), 1)))
    assert [g["recall"] for g in found["groups"]["class"]["groups"].values()] == pytest.approx(
        list(recalls)
    )
    assert found["worst_class"] == pytest.approx(recalls.min())
    assert found["worst_class_name"] == "abcd"[recalls.argmin()]


@given(predictions(), st.integers(1, 20))
def test_calibration_error_is_guo_s_equation(case, bins):
    logits, labels = case
    outputs = softmax(logits.double().numpy(), 1)
    confidence, right = outputs.max(1), outputs.argmax(1) == labels.numpy()
    expected = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            expected += inside.sum() / len(labels) * gap
    assert calibration_error(logits, labels, bins) == pytest.approx(expected, abs=1e-9)


def test_calibration_error_by_hand():
    # Four examples at confidence 0.8, three of them right: |3/4 - 0.8| = 0.05.
    logits = torch.tensor([[0.8, 0.2]]).log().repeat(4, 1)
    assert calibration_error(logits, torch.tensor([0, 0, 0, 1])) == pytest.approx(0.05, abs=1e-7)


def test_a_confidence_between_two_bins_belongs_to_the_lower():
    # 0.5, wrong, in (0, 0.5] and 0.9, right, in (0.5, 1]: (|0 - 0.5| + |1 - 0.9|) / 2.
    logits = torch.tensor([[0.5, 0.5], [0.1, 0.9]]).log()
    assert calibration_error(logits, torch.tensor([1, 1]), bins=2) == pytest.approx(0.3)


def test_the_mean_counts_examples_and_not_batches():
    logits = torch.eye(3)[[0, 0, 0, 1, 1]]
    labels = torch.tensor([0, 0, 0, 0, 2])
    assert accuracy(logits, labels) == 3 / 5


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_is_wilson_s(case):
    k, n = case
    expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(k / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_group_recall_by_hand():
    right = torch.tensor([True, True, False, True, False, False])
    groups = torch.tensor([0, 0, 0, 2, 3, 3])
    found = group_recall(right, groups, ["a", "nobody", "b", "c"])
    assert {name: (g["recall"], g["n"]) for name, g in found["groups"].items()} == {
        "a": (pytest.approx(2 / 3), 3),
        "b": (1.0, 1),
        "c": (0.0, 2),
    }
    assert (found["worst_group"], found["worst_recall"]) == ("c", 0.0)
    assert found["balanced"] == pytest.approx((2 / 3 + 1 + 0) / 3)


@given(predictions())
def test_groups_weighted_by_size_give_the_accuracy_back(case):
    logits, labels = case
    ids = torch.arange(len(labels)) % 3
    found = summed_up(logits, labels, {"thirds": Groups(("x", "y", "z"), ids)})
    groups = found["groups"]["thirds"]["groups"].values()
    mean = sum(g["recall"] * g["n"] for g in groups) / sum(g["n"] for g in groups)
    assert mean == pytest.approx(found["test_accuracy"])
    assert all(g["low"] <= g["recall"] <= g["high"] for g in groups)


@given(predictions(), st.integers(1, 4))
def test_ensemble_is_the_mean_of_the_softmax_outputs(case, m):
    logits, _ = case
    members = [logits.roll(j, 0) for j in range(m)]
    expected = np.mean([softmax(member.double().numpy(), 1) for member in members], axis=0)
    np.testing.assert_allclose(ensemble(members).softmax(1).numpy(), expected, atol=1e-12)


def test_ensemble_is_scored_against_the_labels_and_not_by_agreement():
    # Two of three vote for class 1 mildly; the third is sure of class 0, which is right.
    members = [torch.tensor([[p, 1 - p]]).log() for p in (0.4, 0.4, 0.99)]
    assert accuracy(ensemble(members), torch.tensor([0])) == 1.0
    assert loss(ensemble(members), torch.tensor([0])) == pytest.approx(-np.log(1.79 / 3), abs=1e-6)


def test_ensemble_of_a_sure_member_keeps_finite_logits():
    assert torch.isfinite(ensemble([torch.tensor([[500.0, -500.0]]), torch.zeros(1, 2)])).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_network_is_named(value):
    with pytest.raises(UserError, match="diverged"):
        accuracy(torch.tensor([[0.0, value]]), torch.tensor([0]))


@pytest.mark.parametrize("labels", [torch.tensor([0]), torch.empty(0, dtype=torch.int64)])
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(ValueError, match="do not fit"):
        correct(torch.zeros(2 * len(labels), 3), labels)


@pytest.mark.parametrize("ids", [[0, 1, 2], [0, -1, 1], [0, 1]])
def test_group_indices_that_name_no_group_are_refused(ids):
    with pytest.raises(UserError, match="groups"):
        group_recall(torch.tensor([True, True, False]), torch.tensor(ids), ["a", "b"])


def test_an_empty_ensemble_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        ensemble([])
