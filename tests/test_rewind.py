"""Weight rewinding and SWAMP: the early network, the tickets, the plan, and whole runs."""

import importlib
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.config.experiment import load
from pipeline.data.base import load as load_data
from pipeline.errors import UserError
from pipeline.models.build import build as build_network
from pipeline.plan import dvc_yaml
from pipeline.plan.build import build
from pipeline.plan.plan import Plan
from pipeline.prune.prunable import prunable
from pipeline.prune.rewind import rewind
from pipeline.rounding import round_fraction
from pipeline.schedules.pretrain_lr import pretrain_rates, swa_rates
from pipeline.seeds import derive
from pipeline.storage.checkpoint import Checkpoint, read_json
from pipeline.storage.checkpoint import load as load_checkpoint
from pipeline.train.hook import Hook
from pipeline.train.loop import Settings, steps_per_epoch, train
from pipeline.train.settings import Augmentation

ROOT = Path(__file__).parent.parent
METHODS = ["rewind", "swamp"]
POOLED = (("lottery_pools", ""), ("rewind", "-c0"))  # the network of a phase, and its ticket
EPOCHS, EARLY, BATCH = 3, 1, 512


def plan(**changes: object) -> Plan:
    """Plan the digits, 30 epochs, three phases of 10 epochs to 95 %, with ``changes`` by key."""
    own = load(ROOT / "params.yaml").with_values({"recipe": "digits", "methods": METHODS})
    return build(own.with_values(changes))


# ---- the equation


def ticket(weight: list[float], mask: list[bool] | None, bias: float, phase: int) -> Checkpoint:
    state = {"w": torch.tensor(weight), "b": torch.tensor([bias])}
    masks = {} if mask is None else {"w": torch.tensor(mask)}
    return Checkpoint(state, masks, {"phase": phase})


def test_kept_weights_are_the_early_ones_and_the_others_zero():
    pruned = ticket([5.0, 0.0, 6.0, 0.0], [True, False, True, False], 7.0, 2)
    early = ticket([1.0, -2.0, -3.0, -4.0], None, 9.0, 0)
    result = rewind(pruned, early)
    assert result.state["w"].tolist() == [1.0, 0.0, -3.0, 0.0]
    assert not result.state["w"].signbit()[[1, 3]].any(), "+0.0"
    assert result.state["b"].tolist() == [9.0], "what is not pruned goes back too"
    assert torch.equal(result.masks["w"], pruned.masks["w"])
    assert result.meta == {"phase": 2}
    assert early.state["w"].tolist() == [1.0, -2.0, -3.0, -4.0], "left unchanged"


@pytest.mark.parametrize("change", [{"w": torch.ones(3)}, {"other": torch.ones(1)}])
def test_another_network_is_refused(change):
    early = ticket([1.0, 2.0], None, 0.0, 0)
    other = Checkpoint(dict(early.state) | change, {}, {})
    with pytest.raises(UserError, match=r"differ in '(w|other)': rewind a network to an epoch of"):
        rewind(ticket([1.0, 0.0], [True, False], 0.0, 1), other)


# ---- the plan


@given(st.integers(1, 40), st.data())
def test_every_ticket_trains_the_epochs_after_the_early_network(epochs, data):
    """By retrain.epochs, or by rewind.epoch: k + what follows is pretraining."""
    rest = data.draw(st.integers(1, epochs))
    key = data.draw(st.sampled_from(["retrain.epochs", "rewind.epoch"]))
    value = rest if key == "retrain.epochs" else epochs - rest
    of = plan(**{"pretrain.epochs": epochs, key: value})
    early, dense = of.nodes[f"s0-early{epochs - rest}"].arguments, of.nodes["s0-dense"].arguments
    assert early == dense | {"to_epoch": epochs - rest}, "one seed and one schedule"
    retrained = [n.arguments for n in of.nodes.values() if n.script == "retrain"]
    assert len(retrained) == 3 * (1 + 3)
    assert {(flags["epochs"], flags["schedule"]) for flags in retrained} == {(rest, "LRW")}


def test_a_phase_prunes_the_trained_network_and_trains_the_rewound_one():
    of = plan()
    (early,) = [name for name in of.nodes if name.startswith("s0-early")]
    for name, before in (("rewind", "s0-rewind-p1-c0"), ("swamp", "s0-swamp-p1")):
        pruned = of.nodes[f"s0-{name}-p2-prune"]
        rewound = of.nodes[f"s0-{name}-p2-rewind"]
        assert pruned.inputs == (before,)
        assert set(rewound.inputs) == {early, pruned.name}
        assert of.nodes[f"s0-{name}-p2-c0"].arguments["parent"] == rewound.out
    first = {of.nodes[f"s0-{name}-p1-c0"].arguments["parent"] for name in METHODS}
    assert first == {"artifacts/s0-p1-rewind"}, "the first ticket is shared"
    assert set(of.nodes["s0-p1-rewind"].inputs) == {early, "s0-p1-prune"}
    for method in METHODS:
        alone = plan(methods=[method]).nodes
        assert all(dvc_yaml.command(alone[n]) == dvc_yaml.command(of.nodes[n]) for n in alone)


def test_particles_differ_by_seed_and_are_averaged_by_swa_each():
    of = plan(m=4)
    flags = [of.nodes[f"s0-swamp-p2-c{j}"].arguments for j in range(4)]
    assert len({each["seed"] for each in flags}) == 4
    assert len({str(each | {"seed": 0}) for each in flags}) == 1
    assert (flags[0]["swa_start"], flags[0]["swa_learning_rate"]) == (0.5, 0.05)
    own = plan(**{"swa.start": 0.0, "swa.learning_rate": 0.02}).nodes["s0-swamp-p2-c1"].arguments
    assert (own["swa_start"], own["swa_learning_rate"]) == (0.0, 0.02)
    rows = [row for row in of.rows if row.method == "swamp"]
    assert [row.phase for row in rows] == [1, 2, 3]
    assert all(row.is_soup and len(row.candidates) == 4 for row in rows)


def test_the_other_methods_see_nothing_of_it():
    values = {"methods": ["imp", "imp_swa", "sms"]}
    before, after = (plan(**values, **{"rewind.epoch": k}).nodes for k in (None, 3))
    assert {n: dvc_yaml.command(node) for n, node in before.items()} == {
        n: dvc_yaml.command(node) for n, node in after.items()
    }
    assert "to_epoch" not in before["s0-dense"].arguments


@pytest.mark.parametrize("method", [*METHODS, "lottery_pools"])
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rewind.epoch": 30}, r"rewind.epoch is 30, but must be in \[0, 30\)"),
        ({"rewind.epoch": -1}, "rewind.epoch is -1, but must be at least 0"),
        ({"retrain.epochs": 31}, "rewind.epoch is null, .* here -1, .*: lower retrain.epochs"),
        (
            {"pretrain.epochs": 0, "network.weights": "w.pt"},
            "pretrain.epochs is 0, but {} goes back to an epoch of pretraining: train the dense",
        ),
    ],
)
def test_an_epoch_that_pretraining_does_not_have_is_refused(method, values, sentence):
    with pytest.raises(UserError, match=sentence.format(method)):
        plan(methods=[method], **values)


def test_particles_that_differ_in_more_than_their_seed_are_refused():
    vary = {"retrain.vary": "weight_decay"}
    with pytest.raises(UserError, match="vary is weight_decay, but the particles of swamp differ"):
        plan(methods=["swamp"], **vary)
    assert plan(methods=["rewind"], **vary).nodes["s0-rewind-p3-c0"]


# ---- whole runs


class EpochEnds(Hook):
    """Remembers the parameters after each epoch."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:  # noqa: ARG002
        self.weights.append({n: p.detach().clone() for n, p in model.named_parameters()})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Plan, Path]:
    """Return a small plan of which every stage that trains has run, and its artifacts."""
    of = plan(
        **{"m": 2, "phases": 2, "target_sparsity": 0.8, "evaluate.corruptions": "none"},
        methods=[*METHODS, "lottery_pools"],
        **{"pretrain.epochs": EPOCHS, "pretrain.batch_size": BATCH, "rewind.epoch": EARLY},
    )
    root = tmp_path_factory.mktemp("rewind")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for node in of.nodes.values():
            if node.script not in {"evaluate", "compare"}:  # which measure
                script = importlib.import_module(f"stages.{node.script}")
                words = shlex.split(" ".join(dvc_yaml.command(node)))[2:]
                script.main(script.parser.parse_args(words))
    return of, root / "artifacts"


def stored(run: tuple[Plan, Path], name: str) -> Checkpoint:
    return load_checkpoint(run[1] / f"s0-{name}" / "model.safetensors")


def settings(run: tuple[Plan, Path]) -> Settings:
    own = run[0].params
    pixels = Augmentation(crop_padding=own.augmentation.crop_padding)
    return Settings(BATCH, own.pretrain.weight_decay, augmentation=pixels)


def trace(run: tuple[Plan, Path]) -> list[float]:
    epoch = steps_per_epoch(len(load_data(run[1] / "data").train), BATCH)
    return pretrain_rates("linear", EPOCHS * epoch, run[0].params.pretrain.learning_rate)


def test_the_early_network_has_the_bits_of_pretraining_after_that_epoch(run):
    """Pretraining once more, watched epoch by epoch: parameters and history are equal."""
    data, ends, seed = load_data(run[1] / "data"), EpochEnds(), derive(0, "pretrain")
    torch.manual_seed(derive(seed, "weights"))
    model = build_network("resnet8", len(data.classes), 1)
    train(model, data, settings(run), trace(run), seed=seed, hooks=[ends])
    early, dense = stored(run, f"early{EARLY}"), stored(run, "dense")
    for name in ends.weights[0]:
        assert torch.equal(early.state[name], ends.weights[EARLY - 1][name])
        assert torch.equal(dense.state[name], ends.weights[-1][name])
    rows = [
        read_json(run[1] / f"s0-{name}" / "history.json") for name in (f"early{EARLY}", "dense")
    ]
    assert rows[0] == rows[1][:EARLY]


def test_epoch_zero_is_the_initialisation(run, tmp_path):
    script = importlib.import_module("stages.pretrain")
    words = shlex.split(" ".join(dvc_yaml.command(run[0].nodes[f"s0-early{EARLY}"])))[2:]
    flags = script.parser.parse_args(words)
    flags.data, flags.out, flags.to_epoch = run[1] / "data", tmp_path / "start", 0
    script.main(flags)
    torch.manual_seed(derive(flags.seed, "weights"))
    fresh = build_network("resnet8", 10, 1)
    written = load_checkpoint(flags.out / "model.safetensors").state
    assert all(torch.equal(written[name], each) for name, each in fresh.named_parameters())
    flags.to_epoch = EPOCHS + 1
    with pytest.raises(UserError, match=r"--to-epoch is 4, but must be in \[0, 3\]"):
        script.main(flags)


def masked(weights: dict[str, np.ndarray], sparsity: float) -> dict[str, np.ndarray]:
    """Return the masks that keep the largest of all ``weights``, exactly by rank."""
    flat = np.concatenate([np.abs(each).ravel() for each in weights.values()])
    kept = np.ones(len(flat), bool)
    kept[np.argsort(flat, kind="stable")[: round_fraction(sparsity, len(flat))]] = False
    ends = np.cumsum([each.size for each in weights.values()])[:-1]
    parts = np.split(kept, ends)
    return {n: p.reshape(w.shape) for (n, w), p in zip(weights.items(), parts, strict=True)}


def lineage(run: tuple[Plan, Path], particles: int, swa: bool) -> list[dict[str, np.ndarray]]:
    """Do the papers' algorithm once more on plain arrays; return the result of each phase."""
    data, early, rates = load_data(run[1] / "data"), stored(run, f"early{EARLY}"), trace(run)
    names = prunable(build_network("resnet8", 10, 1))
    weights = {name: each.numpy() for name, each in stored(run, "dense").state.items()}
    rest = rates[EARLY * len(rates) // EPOCHS :]
    epoch, results = len(rates) // EPOCHS, []
    if swa:
        rest = swa_rates(rest, epoch, run[0].params.pretrain.learning_rate / 2)
    for phase, sparsity in enumerate((1 - 0.2**0.5, 0.8), start=1):
        masks = masked({name: weights[name] for name in names}, sparsity)
        trained = []
        for number in range(particles):
            model, ends = build_network("resnet8", 10, 1), EpochEnds()
            start = {name: each.clone() for name, each in early.state.items()}
            for name, mask in masks.items():
                start[name][torch.from_numpy(~mask)] = 0
            model.load_state_dict(start)
            seed = derive(0, "retrain", phase, number)
            held = {name: torch.from_numpy(mask) for name, mask in masks.items()}
            train(model, data, settings(run), rest, seed=seed, masks=held, hooks=[ends])
            taken = ends.weights[1:] if swa else ends.weights[-1:]
            trained.append({n: np.mean([e[n].numpy() for e in taken], 0, float) for n in taken[0]})
        weights = {n: np.mean([e[n] for e in trained], 0).astype(np.float32) for n in trained[0]}
        results.append(weights | {f"{name} mask": mask for name, mask in masks.items()})
    return results


@pytest.mark.parametrize(
    ("method", "particles", "models"),
    [("rewind", 1, ("rewind-p1-c0", "rewind-p2-c0")), ("swamp", 2, ("swamp-p1", "swamp-p2"))],
)
def test_the_stages_do_the_papers_algorithm(run, method, particles, models):
    """Masks are equal; weights too, bit by bit where nothing is averaged."""
    for expected, name in zip(lineage(run, particles, method == "swamp"), models, strict=True):
        found = stored(run, name)
        for key, mask in found.masks.items():
            np.testing.assert_array_equal(mask.numpy(), expected[f"{key} mask"])
            assert not found.state[key][~mask].any()
        for key in (key for key in expected if not key.endswith(" mask")):
            tolerance = {"rtol": 1e-6, "atol": 1e-7} if particles > 1 else {"rtol": 0, "atol": 0}
            np.testing.assert_allclose(found.state[key].numpy(), expected[key], **tolerance)


def test_every_ticket_starts_from_the_early_weights_under_its_mask(run):
    early = stored(run, f"early{EARLY}")
    for name in ("p1", "rewind-p2", "swamp-p2"):
        pruned, rewound = (stored(run, f"{name}-{part}") for part in ("prune", "rewind"))
        for key, value in rewound.state.items():
            mask = pruned.masks.get(key, torch.ones_like(value, dtype=torch.bool))
            assert torch.equal(value, torch.where(mask, early.state[key], 0))
        assert rewound.meta == pruned.meta


def test_pools_are_as_sparse_as_their_tickets_and_no_worse_on_validation(run):
    for phase in (1, 2):
        pooled, ticket = (stored(run, f"{n}-p{phase}{c}") for n, c in POOLED)
        assert pooled.masks.keys() == ticket.masks.keys()
        total = sum(mask.numel() for mask in pooled.masks.values())
        pruned = sum(int((~mask).sum()) for mask in pooled.masks.values())
        assert pruned == round_fraction((0, 1 - 0.2**0.5, 0.8)[phase], total)
        assert all(not pooled.state[key][~mask].any() for key, mask in pooled.masks.items())
        scores = [
            read_json(run[1] / f"s0-{n}-p{phase}{c}" / "metrics.json")["val_accuracy"]
            for n, c in POOLED
        ]
        assert scores[0] >= scores[1]
        trials = read_json(run[1] / f"s0-lottery_pools-p{phase}" / "pool.json")["trials"]
        accepted = [trial["val_score"] for trial in trials if trial["accepted"]]
        assert scores[0] == ([scores[1], *accepted])[-1]
        assert len(trials) == 2
