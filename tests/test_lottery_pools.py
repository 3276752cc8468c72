"""Lottery Pools: the order of the pool, the greedy search on plain arrays, and the plan."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.plan.methods.lottery_pools import adjacent
from pipeline.prune.apply import prune
from pipeline.prune.lottery_pools import COEFFICIENTS, interpolate
from pipeline.storage.checkpoint import Checkpoint
from tests.test_rewind import plan

SHAPE, SPARSITY = (6, 10), 0.7


def test_the_nearest_tickets_come_first_and_the_denser_of_two():
    assert adjacent(2, 6) == [1, 3, 0, 4, 5]
    assert adjacent(1, 2) == [0]
    assert adjacent(4, 5) == [3, 2, 1, 0]


def checkpoint(seed: int, sparsity: float) -> Checkpoint:
    draw = np.random.default_rng(seed)
    weight = draw.normal(size=SHAPE)
    kept = np.abs(weight) > np.quantile(np.abs(weight), sparsity)
    state = {"w": torch.from_numpy(weight * kept), "b": torch.from_numpy(draw.normal(size=3))}
    masks = {"w": torch.from_numpy(kept)} if sparsity else {}
    return Checkpoint(state, masks, {"phase": 2})


def pruned(point: Checkpoint) -> Checkpoint:
    return prune(point, ["w"], SPARSITY, parameters=["w", "b"])[0]


def distance(target: int) -> Callable[[Checkpoint], float]:
    """Return a score: the nearer to a random point, the higher, in steps so that some are equal."""
    wanted = checkpoint(target, 0.0).state["w"]
    return lambda each: -round(float((each.state["w"] - wanted).square().mean()), 2)


def searched(
    ticket: np.ndarray, pool: list[np.ndarray], score: Callable[[np.ndarray], float]
) -> tuple[np.ndarray, list[tuple[float, bool]]]:
    """Do Algorithm 2 on one array: [weights and bias], 70 % of the weights pruned by rank."""
    size, best, trials = int(np.prod(SHAPE)), ticket, []
    for other in pool:
        points = []
        for a in COEFFICIENTS:
            point = a * best + (1 - a) * other
            rank = np.argsort(np.abs(point[:size]), kind="stable")
            point[rank[: round(SPARSITY * size)]] = 0
            points.append(point)
        scores = [score(point) for point in points]
        j = int(np.argmax(scores))
        accepted = scores[j] >= score(best)
        best = points[j] if accepted else best
        trials.append((COEFFICIENTS[j], accepted))
    return best, trials


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_the_search_is_the_papers(seed, count):
    ticket = checkpoint(seed, SPARSITY)
    levels = (0.0, 0.5, 0.85, 0.95)
    pool = [checkpoint(seed + 1 + i, levels[i]) for i in range(count)]
    score, size = distance(seed + 9), int(np.prod(SHAPE))

    def flat(each: Checkpoint) -> np.ndarray:
        return torch.cat([each.state["w"].flatten(), each.state["b"]]).numpy()

    def of_array(point: np.ndarray) -> float:
        weight = torch.from_numpy(point[:size]).view(SHAPE)
        return score(Checkpoint({"w": weight}, {}, {}))

    found = interpolate(ticket, pool, ["w"], prune=pruned, score=score, ticket_score=score(ticket))
    best, trials = searched(flat(ticket), [flat(each) for each in pool], of_array)
    assert [(trial["a"], trial["accepted"]) for trial in found.trials] == trials
    np.testing.assert_allclose(flat(found.checkpoint), best, rtol=1e-12, atol=1e-12)
    mask = found.checkpoint.masks["w"]
    assert int((~mask).sum()) == round(SPARSITY * size), "exactly as sparse as the ticket"
    assert not found.checkpoint.state["w"][~mask].any()
    assert score(found.checkpoint) >= score(ticket), "never worse on validation"


def test_of_equal_scores_the_nearest_to_the_best_wins_and_is_accepted():
    ticket, other = checkpoint(0, SPARSITY), checkpoint(1, 0.0)
    args = {"prune": pruned, "score": lambda _: 0.5}
    found = interpolate(ticket, [other], ["w"], **args, ticket_score=0.5)
    assert found.trials == ({"a": 0.95, "val_score": 0.5, "accepted": True},)
    kept = interpolate(ticket, [other], ["w"], **args, ticket_score=0.6)
    assert kept.checkpoint is ticket
    assert not kept.trials[0]["accepted"]


def test_tickets_of_another_network_are_refused():
    other = Checkpoint({"w": torch.zeros(2, 2)}, {}, {})
    given = {"prune": pruned, "score": lambda _: 0.0, "ticket_score": 0.0}
    with pytest.raises(UserError, match="differ in the tensor 'w'"):
        interpolate(checkpoint(0, SPARSITY), [other], ["w"], **given)


def test_it_trains_nothing_that_rewinding_does_not():
    both, alone = plan(methods=["rewind", "lottery_pools"]), plan(methods=["lottery_pools"])
    trained = [
        {n for n, node in of.nodes.items() if node.script in {"pretrain", "retrain"}}
        for of in (both, alone, plan(methods=["rewind"]))
    ]
    assert trained[0] == trained[1] == trained[2]
    flags = alone.nodes["s0-lottery_pools-p2"].arguments
    tickets = [
        f"artifacts/s0-{name}" for name in ("dense", *(f"rewind-p{p}-c0" for p in (1, 2, 3)))
    ]
    assert flags["ticket"] == tickets[2]
    assert flags["pool"] == [tickets[1], tickets[3], tickets[0]]
    rows = {row.phase: row for row in alone.rows if row.method == "lottery_pools"}
    assert [rows[phase].model for phase in (1, 2, 3)] == [
        f"s0-lottery_pools-p{p}" for p in (1, 2, 3)
    ]
    assert flags["sparsity"] == rows[2].sparsity
