"""Removal: the same outputs from fewer parameters, counted and made in other ways too."""

import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.channels import shrunk_checkpoint
from pipeline.channels.shrink import kept_filters, shrink
from pipeline.errors import UserError
from pipeline.evaluate.speedup import latencies
from pipeline.export.served import served as by_hand
from pipeline.models.build import build
from pipeline.prune.filters import prune_filters
from pipeline.storage.checkpoint import Checkpoint, load, load_tensors, save
from tests.command_line import stage
from tests.project import Project, ran
from tests.test_filters import (
    Wide,
    checkpoint_of,
    convolutions,
    loaded,
    network,
    randomised,
    signals,
    silent,
)

ROOT = Path(__file__).parent.parent
LARGE = {"resnet18": 32, "wrn20": 16, "torchvision.resnet18": 64, "torchvision.resnet50": 64}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # are no parameters
OTHERS = ("torchvision.mobilenet_v2", "torchvision.resnext50_32x4d", "torchvision.densenet121")


def pruned(model: nn.Module, sparsity: float) -> tuple[nn.Module, dict[str, Tensor], Checkpoint]:
    """Prune ``model`` in place; return it, which filters are kept, and the checkpoint."""
    checkpoint, _ = prune_filters(checkpoint_of(model), model, sparsity)
    loaded(model, checkpoint).eval()
    return model, kept_filters(model, checkpoint.masks), checkpoint


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def difference(one: nn.Module, other: nn.Module, images: Tensor) -> float:
    """Return the largest difference between the logits, over the largest logit."""
    with torch.no_grad():
        expected = one(images)
        return float((other(images) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", ["resnet8", "wide"])
@given(sparsity=st.floats(0, 0.99), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_outputs_are_those_of_the_masked_network(name, sparsity, seed):
    model, kept, _ = pruned(network(name, seed), sparsity)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    removed = shrink(model, kept)
    assert difference(model, removed, torch.randn(3, 3, 8, 8)) < 1e-5
    assert count(removed) < count(model) or all(own.all() for own in kept.values())
    for name_, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name_]), "the network itself is left as it was"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LARGE, *OTHERS])
@pytest.mark.parametrize("sparsity", [0.3, 0.8])
def test_outputs_of_large_networks(name, sparsity):
    torch.manual_seed(0)
    model, kept, _ = pruned(randomised(build(name, 10)), sparsity)
    removed = shrink(model, kept)
    size = LARGE.get(name, 64)
    assert difference(model, removed, torch.randn(2, 3, size, size)) < 1e-5
    # A filter takes its row of one weight and, where the channel is nowhere else, a column of the
    # next: less remains than the masks keep, and no less than the square.
    assert 0.9 * (1 - sparsity) ** 2 < count(removed) / count(model) < 1 - sparsity


@pytest.mark.parametrize("name", ["resnet8", "wide"])
def test_each_weight_that_is_left_reads_what_flows_and_writes_what_is_kept(name):
    """The count from the signals of the masked network, not from its graph."""
    model, kept, _ = pruned(network(name), 0.5)
    for layer in model.modules():  # 9 deviations above 0, so that ReLU silences nothing by itself
        if isinstance(layer, nn.BatchNorm2d):
            layer.bias.data = torch.where(layer.weight != 0, 9.0, 0.0)
    removed = shrink(model, kept)
    found = signals(model.train(), torch.randn(16, 3, 8, 8))
    weights = {name: module.weight for name, module in convolutions(removed)}
    for layer, convolution in convolutions(model):
        inputs = int((~silent(found[f"{layer}<"])).sum())
        outputs = int((~silent(found[layer])).sum())
        assert weights[layer].shape == (outputs, inputs, *convolution.kernel_size)
    assert removed.fc.weight.shape[1] == int((~silent(found["fc<"])).sum())


def coupled(model: nn.Module, filters: dict[str, list[int]]) -> tuple[nn.Module, dict[str, Tensor]]:
    """Remove the same filters from all sources of a stream, others inside of blocks."""
    kept = {}
    for name, layer in convolutions(model):
        kept[name] = torch.ones(layer.out_channels, dtype=torch.bool)
        group = name if name in filters else "stream" + str(layer.out_channels)
        kept[name][filters[group]] = False
        norm = {"conv1": "bn1", "conv2": "bn2", "shortcut.0": "shortcut.1"}
        own = next(name.removesuffix(k) + v for k, v in norm.items() if name.endswith(k))
        with torch.no_grad():
            layer.weight[~kept[name]] = 0
            model.get_submodule(own).weight[~kept[name]] = 0
            model.get_submodule(own).bias[~kept[name]] = 0
    return model.eval(), kept


def test_torch_pruning_makes_the_same_network_where_channels_go_everywhere():
    """An independent implementation, which can remove what every source of a stream has lost."""
    import torch_pruning

    filters = {
        **{"stream16": [0, 3], "stream32": [1, 30, 31], "stream64": list(range(40))},
        **{"stages.0.conv1": [5, 6, 7], "stages.1.conv1": [0], "stages.2.conv1": [9, 60]},
    }
    model, kept = coupled(randomised(build("resnet8", 4)), filters)
    theirs, images = copy.deepcopy(model), torch.randn(3, 3, 8, 8)
    graph = torch_pruning.DependencyGraph().build_dependency(theirs, example_inputs=images)
    roots = {"stream16": "conv1", "stream32": "stages.1.conv2", "stream64": "stages.2.conv2"}
    for group, numbers in filters.items():
        layer = theirs.get_submodule(roots.get(group, group))
        graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, numbers).prune()
    ours = shrink(model, kept)
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == shapes
    assert difference(theirs, ours, images) < 1e-5
    assert difference(model, ours, images) < 1e-5


class Shared(nn.Module):
    """One convolution and one norm called twice, and a channel that is read by its place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(torch.sigmoid(self.norm(self.conv(self.stem(x)))))
        x = torch.cat([self.norm(x), x[:, 2:3]], 1)
        return self.fc(torch.flatten(x.mean((2, 3)), 1))


def block(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


@pytest.mark.parametrize(
    "make",
    [
        Shared,
        block(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)),
        block(
            *(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Flatten(1), nn.ReLU()),
            *(nn.Dropout(0.5), nn.Linear(72, 4)),
        ),
        block(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(288, 4)),
        block(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.BatchNorm1d(288), nn.Linear(288, 4)),
        block(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, 4, 1)),
        block(
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.LayerNorm([8, 4, 4]),
            nn.Conv2d(8, 4, 1),
        ),
        block(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.Conv2d(8, 4, 1)),
        block(nn.Conv2d(3, 8, 3), nn.Linear(6, 5), nn.ConvTranspose2d(8, 2, 3)),
        block(
            nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"),
            nn.Softmax(1),
            nn.Conv2d(8, 4, 1),
        ),
    ],
)
def test_whatever_the_graph_cannot_follow_is_left_whole(make):
    torch.manual_seed(0)
    model, kept, _ = pruned(randomised(make()), 0.6)
    assert difference(model, shrink(model, kept), torch.randn(5, 3, 8, 8)) < 1e-5


def test_a_network_out_of_its_file_is_the_one_that_was_written(tmp_path):
    model, kept, checkpoint = pruned(randomised(build("resnet8", 4)), 0.7)
    meta = checkpoint.meta | {"network": "resnet8", "classes": 4, "channels": 3}
    removed, images = shrink(model, kept), torch.randn(3, 3, 8, 8)
    shrunk_checkpoint.save(tmp_path / "small.safetensors", removed, kept, meta)
    again = shrunk_checkpoint.load(tmp_path / "small.safetensors", build)
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(images), removed(images))
    first = (tmp_path / "small.safetensors").read_bytes()
    shrunk_checkpoint.save(tmp_path / "small.safetensors", removed, kept, meta)
    assert (tmp_path / "small.safetensors").read_bytes() == first


def test_another_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="is no network without"):
        shrunk_checkpoint.load(tmp_path / "other.safetensors", build)


def test_a_filter_whose_bias_speaks_is_kept():
    model, kept, checkpoint = pruned(Wide(), 0.5)
    masks = {name: mask for name, mask in checkpoint.masks.items() if name != "conv1.bias"}
    found = kept_filters(model, masks)
    assert found["conv1"].all()
    assert torch.equal(found["blocks.0.conv1"], kept["blocks.0.conv1"])
    assert not kept["conv1"].all()


def test_more_work_takes_longer_and_the_networks_stay_as_they_were():
    one = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)).train()
    many = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(30)))
    threads = torch.get_num_threads()
    found = latencies({"one": one, "many": many}, torch.rand(2, 8, 32, 32), seconds=0.2)
    assert 0 < 3 * found["one"] < found["many"]
    assert one.training
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_stages_prune_and_remove(tmp_path):
    """From the digits to a network without its filters; what has no whole filters is refused."""
    data, dense = tmp_path / "data", tmp_path / "dense"
    training = ["--epochs", 1, "--batch-size", 256, "--weight-decay", 1e-4, "--seed", 0]
    run = ["--network", "resnet8", "--schedule", "constant", "--learning-rate", 0.05, *training]
    assert stage("prepare", "--name", "digits", "--out", data).returncode == 0
    assert stage("pretrain", "--data", data, *run, "--out", dense).returncode == 0
    gone, retrained = tmp_path / "gone", tmp_path / "retrained"
    flags = ["--parent", dense, "--phase", 1, "--sparsity", 0.6, "--structure", "filters"]
    assert stage("prune", *flags, "--out", gone).returncode == 0
    flags = ["--data", data, "--parent", gone, "--dense", dense, "--schedule", "ALLR"]
    assert stage("retrain", *flags, *training, "--out", retrained).returncode == 0
    flags = ["--data", data, "--model", retrained]
    done = stage("shrink", *flags, "--out", tmp_path / "small")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "small" / "metrics.json").read_text())
    assert metrics["difference"] < 1e-5
    assert metrics["filters"]["conv1"] == {"kept": 6, "filters": 16}
    for sizes in (metrics["parameters"], metrics["bytes"]):
        assert 0 < sizes["removed"] < sizes["masked"] < sizes["dense"]
    assert metrics["macs"]["removed"] < 0.25 * metrics["macs"]["dense"]
    assert all(found["removed_ms"] > 0 for found in metrics["latency"].values())
    whole = load(retrained / "model.safetensors")
    heard = whole.state | {"bn1.bias": torch.ones(16)}
    masks = {name: mask for name, mask in whole.masks.items() if name != "bn1.bias"}
    save(retrained / "model.safetensors", Checkpoint(heard, masks, whole.meta))
    refused = stage("shrink", *flags, "--out", tmp_path / "none")
    assert refused.returncode == 2
    assert "masks are not of whole filters" in refused.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own
def test_the_whole_graph_with_filters_ends_in_a_report_of_measured_times(tmp_path, monkeypatch):
    project = Project.create(tmp_path / "project")
    project.edit("params.yaml", "prune: {", "prune: {structure: filters, ")
    project.edit("params.yaml", "methods: [sms, imp]", "methods: [sms, imp, imp_reprune]")
    project.edit("params.yaml", "m: 3", "m: 2")
    output = project.run("dvc", "repro", SMS_MLFLOW="1")
    finals = {"s0-sms_uniform-p2", "s0-imp-p2-c0", "s0-imp_reprune-p2"}
    assert {f"{name}-shrink" for name in finals} <= ran(output)
    for name in finals:
        found = json.loads((project.root / f"artifacts/{name}-shrink/metrics.json").read_text())
        assert found["difference"] < 1e-5
        assert found["filters"]["conv1"] == {"kept": 3, "filters": 16}  # 16 - floor(12.8 + 0.5)
    with (project.root / "reports/results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["phase"] == "2"]
    assert len(rows) == 3
    assert all(float(row["measured_speedup_64"]) > 0 for row in rows)
    artifacts = project.root / "artifacts"
    removed = {
        row["model"]: int(float(row["parameters_removed"]))
        for row in rows
        if row["method"] != "dense"
    }
    assert removed == {
        name: sum(
            tensor.numel()
            for key, tensor in load_tensors(artifacts / f"{name}-shrink/small.safetensors").items()
            if not key.endswith(STATISTICS)
        )
        for name in finals
    }
    page = (project.root / "reports/results.md").read_text()
    assert "filters pruned by L2 norm, an equal share of each layer" in page
    table = page.split("measured, 64 images (x)")[1]
    assert all(f"| {label} |" in table for label in ("SMS uniform", "IMP", "IMP-RePrune"))
    assert "| conv1 | 3 | 16 |" in page
    assert "## Missing" not in page
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.root}/mlflow.db")
    assert_the_small_soup_is_served(project.root)
    assert ran(project.run("dvc", "repro")) == set()


def assert_the_small_soup_is_served(root: Path) -> None:
    """Load the registered model: the probabilities of the masked network, from fewer weights."""
    version = mlflow.MlflowClient().get_model_version("sms-tiny", "1")
    assert version.description.startswith("`resnet8` for image classification on `digits`")
    assert "| multiply-accumulates without the pruned filters | " in version.description
    assert mlflow.MlflowClient().get_registered_model("sms-tiny").description == version.description
    served = mlflow.pyfunc.load_model(version.source)
    soup = root / "artifacts" / "s0-sms_uniform-p2"
    masked = by_hand(soup, root / "artifacts" / "data")
    images = load_tensors(root / "artifacts" / "data" / "test.safetensors")["images"][:32]
    with torch.no_grad():
        expected = masked(images).numpy()
    np.testing.assert_allclose(served.predict(images.numpy()), expected, atol=1e-5)
    compiled = mlflow.pyfunc.load_model(version.source, model_config={"runtime": "sparse"})
    np.testing.assert_allclose(compiled.predict(images.numpy()), expected, atol=1e-5)
    graph = served.unwrap_python_model().module
    file = root / "artifacts" / f"{soup.name}-shrink" / shrunk_checkpoint.SMALL
    small_soup = shrunk_checkpoint.load(file, build)
    assert count(graph) == count(small_soup) < count(masked)
