"""Errors by group: intervals that cover what they should, shifts and recalls by hand."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from pipeline.data.base import Dataset, Groups, Split, load, save
from pipeline.errors import UserError
from pipeline.evaluate.groups import shift
from pipeline.evaluate.intervals import mean_of, paired, wilson
from pipeline.evaluate.subgroups import against, by_group, chosen

NAMES = ("female non-blond", "female blond", "male non-blond", "male blond")


def tables(most: int = 200):
    """Lost, gained and all of some examples."""
    return st.tuples(*[st.integers(0, most)] * 3).map(lambda t: (t[0], t[1], sum(t) + 1))


@given(tables())
def test_an_interval_of_a_change_holds_it_and_mirrors(case):
    lost, gained, n = case
    low, high = paired(lost, gained, n)
    assert -1 <= low <= (lost - gained) / n <= high <= 1
    assert paired(gained, lost, n) == pytest.approx((-high, -low))


def test_a_change_of_many_examples_has_the_normal_interval():
    """With many examples the added halves do not matter: d -+ 1.96 sqrt(b + c - (b-c)^2/n)/n."""
    lost, gained, n = 3000, 1000, 100_000
    half = 1.959964 * np.sqrt(lost + gained - (lost - gained) ** 2 / n) / n
    assert paired(lost, gained, n) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-5)


def test_no_change_among_few_examples_is_no_certainty():
    """None of 24 images lost or gained: b = c = 1/2, N = 26, 1.96 / 26 on either side."""
    assert paired(0, 0, 24) == pytest.approx((-1.959964 / 26, 1.959964 / 26), abs=1e-6)


@pytest.mark.parametrize("chances", [(0.3, 0.1), (0.1, 0.1), (0.2, 0.02)])
def test_intervals_of_a_change_cover_it_in_95_of_100_cases(chances):
    """24 images, as blond men in the small pack: exactly, over all outcomes of the multinomial."""
    n, (p, q) = 24, chances
    log = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    inside = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            low, high = paired(b, c, n)
            if low <= p - q <= high:
                rest = n - b - c
                ways = np.exp(log[n] - log[b] - log[c] - log[rest])
                inside += ways * p**b * q**c * (1 - p - q) ** rest
    assert 0.93 < inside < 0.99


def test_the_interval_of_a_mean_of_one_share_is_its_own():
    assert mean_of([0.7], [30]) == pytest.approx(wilson(0.7, 30))


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 500)), min_size=1, max_size=6))
def test_the_interval_of_a_mean_holds_it_and_is_no_wider_than_the_mean_of_intervals(groups):
    shares, counts = zip(*groups, strict=True)
    low, high = mean_of(shares, counts)
    ends = [wilson(p, n) for p, n in groups]
    mean = sum(shares) / len(shares)
    assert low <= mean <= high
    assert low >= sum(end[0] for end in ends) / len(ends) - 1e-12
    assert high <= sum(end[1] for end in ends) / len(ends) + 1e-12


def test_the_interval_of_a_mean_covers_it():
    """24, 380, 1,000 and 1,600 images, the pack's test split, at plausible recalls: simulated."""
    truth, counts = np.array([0.5, 0.85, 0.99, 0.95]), [24, 380, 1000, 1600]
    rng = np.random.default_rng(0)
    seen = rng.binomial(counts, truth, (2000, 4)) / counts
    ends = [mean_of(row.tolist(), counts) for row in seen]
    inside = np.mean([low <= truth.mean() <= high for low, high in ends])
    assert 0.93 < inside < 0.97


def test_a_shift_by_hand():
    """Group a: lost 2, gained 1, of 4. Group b: nothing changed, of 2. Nobody is in c."""
    before = torch.tensor([1, 1, 0, 0, 1, 0]).bool()
    after = torch.tensor([0, 0, 1, 0, 1, 0]).bool()
    found = shift(before, after, torch.tensor([0, 0, 0, 0, 1, 1]), ["a", "b", "c"])
    assert list(found) == ["a", "b"]
    assert [found["a"][key] for key in ("lost", "gained", "change")] == [2, 1, 0.25]
    assert [found["b"][key] for key in ("lost", "gained", "change")] == [0, 0, 0]
    assert (found["a"]["low"], found["a"]["high"]) == paired(2, 1, 4)


@given(st.integers(0, 2**32 - 1))
def test_shifts_weighted_by_size_give_the_change_of_the_error_back(seed):
    rng = np.random.default_rng(seed)
    before, after = (torch.from_numpy(rng.random(60) < 0.7) for _ in range(2))
    ids = torch.from_numpy(rng.integers(0, 3, 60))
    found = shift(before, after, ids, "abc")
    total = sum(
        int((ids == "abc".index(name)).sum()) * one["change"] for name, one in found.items()
    )
    assert total == pytest.approx(int(before.sum()) - int(after.sum()))


@pytest.fixture
def data() -> Dataset:
    """Return eight test faces, two a group, and one training face each."""
    images = torch.zeros(8, 3, 8, 8, dtype=torch.uint8)
    test = Split(images, torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]))
    train = Split(images[:4], torch.tensor([0, 1, 0, 1]))
    groups = Groups(NAMES, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), torch.arange(4))
    own = {"classes": Groups(("no", "yes"), test.labels), "Male x Blond_Hair": groups}
    return Dataset(train, train, test, ("no", "yes"), torch.zeros(3), torch.ones(3), own)


def answers(*said: int) -> torch.Tensor:
    return torch.eye(2)[list(said)]


def test_measures_by_group_are_named_with_their_split(data):
    """Right: 2, 1, 2 and 0 of two each; classes 4 of 4 and 1 of 4."""
    name, groups = chosen(data, None)
    found = by_group("test", answers(0, 0, 1, 0, 0, 0, 0, 0), data.test, data, groups)
    assert name == "Male x Blond_Hair"
    assert found["test_accuracy"] == 5 / 8
    assert found["test_macro_accuracy"] == (4 / 4 + 1 / 4) / 2
    assert found["test_group_mean"] == (1 + 1 / 2 + 1 + 0) / 4
    assert found["test_worst_group"] == 0
    assert found["test_recall"] == dict(zip(NAMES, (1, 0.5, 1, 0), strict=True))
    assert found["test"]["groups"]["male blond"]["n"] == 2
    assert all("accuracy" not in key or key.startswith("test_") for key in found)


def test_errors_against_the_dense_network(data):
    """Dense has all but one blond man right; the pruned one loses a blond woman and that man."""
    dense, pruned = answers(0, 0, 1, 1, 0, 0, 1, 0), answers(0, 0, 1, 0, 0, 0, 0, 1)
    found = against(dense, pruned, data.test, "test", chosen(data, None)[1])
    assert found["test_error_change"] == dict(zip(NAMES, (0, 0.5, 0, 0), strict=True))
    blond = found["test_shift"]["male blond"]
    assert (blond["lost"], blond["gained"]) == (1, 1)


def test_the_groups_of_training_images_are_stored(data, tmp_path):
    save(data, tmp_path)
    loaded = load(tmp_path).groups
    assert loaded["classes"].train is None
    assert torch.equal(loaded["Male x Blond_Hair"].train, torch.arange(4))


def test_groups_are_chosen_by_name(data):
    assert chosen(data, "classes")[0] == "classes"
    with pytest.raises(UserError, match="'hair', but unnamed has classes, Male x Blond_Hair"):
        chosen(data, "hair")
