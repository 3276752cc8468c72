"""The stages of the study landscape, against direct evaluation of the networks."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from pipeline.data.base import load as load_data
from pipeline.stagekit.model_folder import network, read
from pipeline.storage.checkpoint import Checkpoint, read_json, save
from tests.command_line import stage
from tests.test_stages import data as prepared
from tests.test_stages import pretrain, refused

data = prepared  # pytest finds a fixture by its name in this module


@pytest.fixture(scope="module")
def folders(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return three dense networks, one of them pruned to 50 % and again to 80 %."""
    root = tmp_path_factory.mktemp("landscape")
    for number, rate in enumerate((0.1, 0.05, 0.02)):
        assert pretrain(data, root / f"dense{number}", rate).returncode == 0
    flags = ["--criterion", "magnitude", "--allocation", "global"]
    for phase, (parent, sparsity) in enumerate((("dense0", 0.5), ("half", 0.8)), start=1):
        out = root / ("half" if phase == 1 else "most")
        cut = ["--phase", phase, "--sparsity", sparsity, *flags]
        assert stage("prune", "--parent", root / parent, *cut, "--out", out).returncode == 0
    return {path.name: path for path in root.iterdir()}


def measured(name: str, data: Path, out: Path, *flags: object) -> dict:
    run = stage(name, "--data", data, "--device", "cpu", *flags, "--out", out)
    assert run.returncode == 0, run.stderr
    return read_json(out / "metrics.json")


def batch_loss(folder: Path, data: Path, count: int) -> float:
    """Return the loss of the first examples of the fixed draw, normalised by their statistics."""
    split = load_data(data)
    order = torch.randperm(len(split.train.labels), generator=torch.Generator().manual_seed(0))
    rows = order[:count]
    pixels = (split.train.images[rows].double() / 255 - split.mean.double()) / split.std.double()
    model = network(read(folder)).double().train()
    with torch.no_grad():
        return float(cross_entropy(model(pixels), split.train.labels[rows]))


def test_curvature_is_over_the_kept_weights_of_one_loss(data, folders, tmp_path):
    flags = ["--batch-size", 32, "--train-images", 128, "--probes", 2, "--seed", 5]
    metrics = measured("curvature", data, tmp_path / "a", "--model", folders["half"], *flags)
    masks = read(folders["half"]).masks
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    parameters = list(network(read(folders["half"])).parameters())
    assert metrics["weights"] == sum(p.numel() for p in parameters) - pruned
    assert metrics["norm_squared"] == pytest.approx(
        sum(float(p.detach().square().sum()) for p in parameters), rel=1e-5
    )
    expected = batch_loss(folders["half"], data, 128)
    assert metrics["train_loss"] == pytest.approx(expected, rel=1e-4)
    assert metrics["eigenvalue"] > 0 < metrics["gradient_noise"]
    again = measured("curvature", data, tmp_path / "b", "--model", folders["half"], *flags)
    assert again == metrics, "equal seeds"
    run = stage("curvature", "--data", data, "--model", folders["half"], *flags[:1], 512,
                *flags[2:], "--out", tmp_path / "c")  # fmt: skip
    assert refused(run, "raise study.landscape.images above 512, or lower pretrain.batch_size")


def test_damage_of_a_small_step_is_its_second_order_prediction(data, folders, tmp_path):
    """Pruned to where it was: nothing. Pruned further: the ends are those of the networks."""
    flags = ["--train-images", 200, "--seed", 3, "--model", folders["half"], "--pruned"]
    same = measured("damage", data, tmp_path / "same", *flags, folders["half"])
    assert same["before"] == same["after"]
    assert (same["step_squared"], same["predicted"]) == (0, 0)
    further = measured("damage", data, tmp_path / "further", *flags, folders["most"])
    old, new = (read(folders[name]).state for name in ("half", "most"))
    names = read(folders["half"]).masks
    step = sum(float((old[name] - new[name]).double().square().sum()) for name in names)
    assert further["step_squared"] == pytest.approx(step, rel=1e-6)
    assert further["before"] == same["before"]
    assert further["predicted"] == pytest.approx(further["slope"] + further["curvature"])
    merged = ["--candidates", folders["most"], "--rule", "uniform"]
    alone = measured("merge", data, tmp_path / "alone", *merged)
    assert further["after"]["test"]["loss"] == pytest.approx(alone["test_loss"])
    assert 1 - further["after"]["val"]["error"] == pytest.approx(alone["val_accuracy"])


def test_a_point_of_the_plane_is_the_network_a_step_along_its_basis(data, folders, tmp_path):
    """w_1 + x u + y v by Gram and Schmidt, written as a network and measured by another stage."""
    models = [folders[f"dense{number}"] for number in range(3)]
    plane = measured("plane", data, tmp_path / "plane", "--models", *models, "--points", 2)
    first, second, third = (read(model) for model in models)
    names = [name for name, _ in network(first).named_parameters()]
    origin, u, v = (
        torch.cat([model.state[name].double().flatten() for name in names])
        for model in (first, second, third)
    )
    u, v = u - origin, v - origin
    distance = u.norm()
    u /= distance
    v -= (v @ u) * u
    v /= v.norm()
    assert plane["corners"][:2] == [[0, 0], [pytest.approx(float(distance)), 0]]
    state, done = dict(first.state), 0
    point = origin + plane["x"][1] * u + plane["y"][0] * v
    for name in names:
        shape = state[name].shape
        state[name] = point[done : done + shape.numel()].view(shape).float()
        done += shape.numel()
    (tmp_path / "point").mkdir()
    save(tmp_path / "point" / "model.safetensors", Checkpoint(state, {}, first.meta))
    flags = ["--candidates", tmp_path / "point", "--rule", "uniform"]
    alone = measured("merge", data, tmp_path / "alone", *flags)
    assert plane["test_loss"][0][1] == pytest.approx(alone["test_loss"], rel=1e-3)
    assert plane["test_loss"][0][1] != pytest.approx(plane["test_loss"][1][0], rel=1e-2)
    refusal = stage("plane", "--data", data, "--models", models[0], *models[:2],
                    "--out", tmp_path / "line")  # fmt: skip
    assert refused(refusal, "lie on one line")
