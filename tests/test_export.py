"""Export: files that compute what the network does, a card that says what was measured."""

import json
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline import api, inference
from pipeline.channels import shrunk_checkpoint
from pipeline.data.base import Dataset, Split
from pipeline.data.base import load as load_data
from pipeline.data.base import save as save_data
from pipeline.errors import UserError
from pipeline.evaluate.speedup import interleaved_medians
from pipeline.export import selection
from pipeline.export.card import body, description
from pipeline.export.facts import Facts, read_facts
from pipeline.export.folder import replacing, write_config
from pipeline.export.formats.base import CALIBRATION, load_format, source_of
from pipeline.export.measure import check_equal, score_on_test
from pipeline.export.served import traced
from pipeline.export.write import Inputs, export
from pipeline.models.build import build
from pipeline.plan import dvc_yaml
from pipeline.prune.filters import prune_filters
from pipeline.registry import names
from pipeline.stagekit.model_folder import network, read
from pipeline.storage.checkpoint import Checkpoint, load, save, write_json
from tests.command_line import stage
from tests.project import Project
from tests.test_filters import randomised
from tests.test_plan import plan

MEAN, STD = 0.3, 0.25
KINDS = {  # network, image shape, classes, task
    "classifier": ("resnet8", (1, 8, 8), 10, "classification"),
    "filters": ("resnet8", (1, 8, 8), 10, "classification"),
    "pixels": ("pspnet_small", (3, 24, 32), 3, "segmentation"),
}


def dataset(shape: tuple[int, ...], classes: int, task: str) -> Dataset:
    """Return images whose lowest bit tells the split: 0 in training, 1 elsewhere."""
    generator = torch.Generator().manual_seed(0)
    splits = []
    for number, odd in ((40, 0), (20, 1), (30, 1)):
        images = torch.randint(0, 128, (number, *shape), generator=generator, dtype=torch.uint8)
        size = (number, *shape[1:]) if task == "segmentation" else (number,)
        splits.append(Split(images * 2 + odd, torch.randint(0, classes, size, generator=generator)))
    scale = torch.full((shape[0],), MEAN), torch.full((shape[0],), STD)
    labels = tuple(f"k{number}" for number in range(classes))
    return Dataset(*splits, labels, *scale, {}, name="toy", task=task)


def checkpoints(kind: str) -> tuple[Checkpoint, Checkpoint]:
    """Return a dense network, and the same with half of its filters, or 90 % of its weights."""
    name, shape, classes, _ = KINDS[kind]
    torch.manual_seed(0)
    model = randomised(build(name, classes, shape[0]))
    meta = {"network": name, "classes": classes, "channels": shape[0], "phase": 1, "sparsity": 0.0}
    dense = Checkpoint(model.state_dict(), {}, meta)
    if kind == "filters":
        return dense, prune_filters(dense, model, 0.5)[0]
    masks = {n: torch.rand_like(w) < 0.1 for n, w in model.named_parameters() if w.ndim == 4}
    state = {n: torch.where(masks[n], w, 0) if n in masks else w for n, w in dense.state.items()}
    return dense, Checkpoint(state, masks, meta | {"sparsity": 0.9})


def artifacts(root: Path, kind: str) -> Inputs:
    """Write the artifacts of a soup of ``kind`` as the stages do."""
    data = dataset(*KINDS[kind][1:])
    save_data(data, root / "data")
    score = "mean_iou" if data.task == "segmentation" else "accuracy"
    for name, checkpoint in zip(("dense", "soup"), checkpoints(kind), strict=True):
        save(root / name / "model.safetensors", checkpoint)
        numbers = {f"val_{score}": 0.75, f"test_{score}": 0.5}
        write_json(root / name / "metrics.json", numbers)
    write_json(
        root / "soup" / "merge.json",
        {"included": [0, 2], "weights": [0.5, 0.0, 0.5], "rule": "greedy"},
    )
    worst = {"worst_group": "k1", "worst_recall": 0.25, "worst_iou": 0.25}
    measured = {"groups": {"class": worst}, "macs": 1000, "sparse_macs": 125.5}
    write_json(root / "eval" / "metrics.json", measured)
    robust = {"mean_15": 0.375, "synthetic": True, "about": "made up"}
    write_json(root / "ood" / "metrics.json", robust)
    metrics = [root / "eval"] if data.task == "segmentation" else [root / "eval", root / "ood"]
    return Inputs(root / "data", root / "soup", root / "dense", metrics)


def outputs(kind: str, images: Tensor, checkpoint: Checkpoint) -> np.ndarray:
    """Return the probabilities of the network with its zeros, by the definition."""
    name, _, classes, _ = KINDS[kind]
    model = build(name, classes, images.shape[1])
    model.load_state_dict(checkpoint.state)
    with torch.no_grad():
        return torch.softmax(model.eval()((images / 255 - MEAN) / STD), 1).numpy()


def images_of(kind: str, number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    shape = (number, *KINDS[kind][1])
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def exports(tmp_path_factory, formats: list[str], seconds: float):
    """Return a function that exports a kind, each once, without a network."""

    def refuse(*_: object) -> None:
        raise AssertionError("an export opens a connection")

    @cache
    def make(kind: str) -> tuple[Inputs, Path]:
        root = tmp_path_factory.mktemp(kind)
        inputs = artifacts(root, kind)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_HUB_OFFLINE", "1")
            patch.setattr(socket.socket, "connect", refuse)
            export(inputs, formats, root / "out", seconds=seconds)
        return inputs, root / "out"

    return make


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Callable[[str], tuple[Inputs, Path]]:
    return exports(tmp_path_factory, ["torch"], seconds=0)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Callable[[str], tuple[Inputs, Path]]:
    return exports(tmp_path_factory, ["sparse"], seconds=0)


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory) -> Callable[[str], tuple[Inputs, Path]]:
    return exports(tmp_path_factory, ["torch", "onnx", "openvino"], seconds=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classifier", "pixels"])
def test_plain_and_sparse_files_hold_the_networks_bits(exported, kind):
    inputs, out = exported(kind)
    checkpoint = load(inputs.model / "model.safetensors")
    plain = load_file(out / "model.safetensors")
    assert plain.keys() == checkpoint.state.keys()
    assert all(torch.equal(plain[name], tensor) for name, tensor in checkpoint.state.items())
    sparse = load(out / "model_sparse.safetensors")
    assert all(torch.equal(sparse.state[name], tensor) for name, tensor in plain.items())
    assert all(torch.equal(sparse.masks[name], mask) for name, mask in checkpoint.masks.items())
    dense_bytes = sum(tensor.nbytes for tensor in plain.values())
    assert (out / "model_sparse.safetensors").stat().st_size < 0.5 * dense_bytes
    config = json.loads((out / "config.json").read_text())
    model = build(config["network"], len(config["classes"]), config["channels"])
    model.load_state_dict(plain)  # strict: by config.json and the file alone


@pytest.mark.slow
def test_without_its_filters_the_network_is_the_small_one(exported):
    inputs, out = exported("filters")
    plain = load_file(out / "model.safetensors")
    small = shrunk_checkpoint.load(out / "small.safetensors", build)
    assert all(torch.equal(plain[name], tensor) for name, tensor in small.state_dict().items())
    assert plain["conv1.weight"].shape[0] == 8  # half of 16
    assert not (out / "model_sparse.safetensors").exists()
    images = images_of("filters", 5)
    expected = outputs("filters", images, load(inputs.model / "model.safetensors"))
    found = load_format("torch").load(out, 1)(images).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert "without the pruned filters" in (out / "README.md").read_text()


@pytest.mark.parametrize("kind", ["classifier", "filters"])
def test_the_compiled_network_maps_stored_images_to_probabilities(compiled, kind):
    inputs, out = compiled(kind)
    images = images_of(kind, 21)  # a block of 16 and a part of one
    expected = outputs(kind, images, load(inputs.model / "model.safetensors"))
    found = load_format("sparse").load(out, 1)(images).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    names = {"images": images.numpy()}
    usage = load_format("sparse").USAGE.replace("model_inference", str(out / "model_inference"))
    exec(usage, names)
    np.testing.assert_allclose(names["probabilities"], expected, atol=1e-5)
    assert "pipeline.inference" in (out / "README.md").read_text()


def test_a_network_with_other_operations_is_not_compiled(tmp_path):
    data = dataset((3, 32, 32), 3, "classification")
    model = build("torchvision.convnext_tiny", 3)
    meta = {"network": "torchvision.convnext_tiny", "classes": 3, "channels": 3}
    source = source_of(Checkpoint(model.state_dict(), {}, meta | {"sparsity": 0.0}), data)
    sentence = r"torchvision.convnext_tiny cannot be exported .*: leave sparse out of export"
    with pytest.raises(UserError, match=sentence):
        load_format("sparse").write(source, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("optional", [(), ("sparse",)])
def test_only_an_optional_format_is_left_out_if_it_cannot_be_written(
    tmp_path, monkeypatch, optional
):
    def fail(source, folder):
        raise UserError("has no kernel")

    monkeypatch.setattr("pipeline.export.formats.sparse.write", fail)
    inputs, out = artifacts(tmp_path, "classifier"), tmp_path / "out"
    if not optional:
        with pytest.raises(UserError, match="has no kernel"):
            export(inputs, ["torch", "sparse"], out, seconds=0)
        assert not out.exists()
        return
    assert export(inputs, ["sparse", "torch"], out, 0, optional) == ["torch"]
    assert json.loads((out / "config.json").read_text())["formats"] == ["torch"]
    assert "pipeline.inference" not in (out / "README.md").read_text()


def test_without_its_filters_the_compiled_network_is_the_small_one(compiled):
    _, out = compiled("filters")
    operations = inference.load(out / "model_inference.safetensors").network.operations
    first = next(operation for operation in operations if operation.kind == "conv")
    assert first.arrays["weight"].shape[0] == 8  # half of 16
    node = plan(export=["sparse"], prune={"structure": "filters"}).nodes["s0-sms_uniform-p3-export"]
    assert node.arguments["formats"] == ["sparse"]


@pytest.mark.slow
@pytest.mark.parametrize("kept", [(), (".git/HEAD", ".gitattributes")])
def test_a_second_export_replaces_the_first_and_nothing_else(exported, tmp_path, kept):
    inputs, first = exported("classifier")
    out = tmp_path / "deep" / "out"
    shutil.copytree(first, out)
    write(out, *kept)
    export(inputs, ["sparse"], out, seconds=0)
    written = {"README.md", "config.json", "model_inference.safetensors"}
    assert contents(out).keys() == written | set(kept)
    assert set(json.loads((out / "config.json").read_text())["files"]) == written
    assert [file.name for file in out.parent.iterdir()] == ["out"]


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def contents(folder: Path) -> dict[str, str]:
    """Return the texts of the files in ``folder`` and its folders."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text("latin-1") for path in files}


def earlier(out: Path, *kept: str) -> dict[str, str]:
    """Write an earlier export of a, b and README.md to ``out``; return its contents."""
    out.mkdir()
    write(out, "a", "b", *kept)
    write_config(out, {})
    write(out, "README.md")
    return contents(out)


@pytest.mark.parametrize("kept", [(), (".git/HEAD",), (".gitattributes",)])
@pytest.mark.parametrize("foreign", ["notes.txt", "weights/a"])
def test_files_that_the_export_did_not_write_are_never_replaced(tmp_path, kept, foreign):
    out, name = tmp_path / "out", foreign.partition("/")[0]
    earlier(out, *kept)
    with pytest.raises(UserError, match=f"{name}, which is no file of the export"), replacing(out):
        write(out, foreign)  # while the export is at work
    assert contents(out).keys() == {"a", "b", "README.md", "config.json", foreign, *kept}
    before = contents(out)
    with pytest.raises(UserError, match=f"{name}, which is no file of the export"):
        export(artifacts(tmp_path, "classifier"), ["torch"], out)
    assert contents(out) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("call", range(6))
def test_an_interrupted_replacement_in_a_clone_can_be_repeated(tmp_path, monkeypatch, call):
    """A move does not happen; the next export ends as if it had."""
    out, kept = tmp_path / "out", (".git/HEAD", ".gitattributes")
    before = earlier(out, *kept)

    def new(folder: Path) -> None:
        write(folder, "b", "c")
        write_config(folder, {"sparsity": 0.5})
        write(folder, "README.md")

    calls = count()

    def moved(source: Path, target: Path) -> None:
        if next(calls) == call:
            raise KeyboardInterrupt
        Path(source).rename(target)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.export.folder.os.replace", moved)
        with pytest.raises(KeyboardInterrupt), replacing(out) as folder:
            new(folder)
    with replacing(out) as folder:
        new(folder)
    after = contents(out)
    assert after.keys() == {"b", "c", "README.md", "config.json", *kept}
    assert json.loads(after["config.json"])["sparsity"] == 0.5
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}


@pytest.mark.parametrize("config", [
    None, "{", "[]", '{"architectures": ["Other"]}', '{"writer": "sparse-model-soups"}',
    '{"writer": "sparse-model-soups", "files": 3}',
])  # fmt: skip
def test_a_folder_that_is_no_export_is_kept(tmp_path, config):
    out = tmp_path / "out"
    write(out, "notes.txt")
    if config is not None:
        (out / "config.json").write_text(config)
    before = contents(out)
    ours = config is not None and "writer" in config
    sentence = "out has notes.txt, which" if ours else "no export, so it is not replaced"
    with pytest.raises(UserError, match=sentence):
        export(artifacts(tmp_path, "classifier"), ["torch"], out)
    assert contents(out) == before


def test_nothing_is_written_if_a_format_fails(tmp_path, monkeypatch):
    inputs = artifacts(tmp_path, "classifier")

    def fail(source, folder):
        (folder / "half").write_text("half")
        raise UserError("cannot")

    monkeypatch.setattr("pipeline.export.formats.torch.write", fail)
    with pytest.raises(UserError, match="cannot"):
        export(inputs, ["torch"], tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_format_that_differs_is_refused():
    data = dataset(*KINDS["classifier"][1:])
    source = source_of(checkpoints("classifier")[1], data)

    def off(by: float) -> Callable[[Tensor], Tensor]:
        def run(images: Tensor) -> Tensor:
            with torch.no_grad():
                result = source.served(images).clone()
            result[-1, -1] += by * (len(images) == 3)  # the random images
            return result

        return run

    check_equal("onnx", off(0.5e-4), source)
    with pytest.raises(UserError, match=r"onnx differs from PyTorch by 0\.0002"):
        check_equal("onnx", off(2e-4), source)
    with pytest.raises(UserError, match="differs from PyTorch by nan"):
        check_equal("onnx", off(float("nan")), source)


def test_calibration_reads_training_images_only():
    data = dataset(*KINDS["classifier"][1:])
    source = source_of(checkpoints("classifier")[1], data)
    assert len(source.calibration) == min(CALIBRATION, len(data.train))
    assert not (source.calibration % 2).any()
    assert (source.examples % 2).all()
    assert torch.equal(source.examples, data.val.images[: len(source.examples)])


@pytest.mark.parametrize("kind", ["classifier", "pixels"])
def test_the_score_of_a_runner_is_the_networks(kind):
    """A runner gets stored images and returns probabilities; the score is the task's."""
    data, checkpoint = dataset(*KINDS[kind][1:]), checkpoints(kind)[0]
    found = score_on_test(lambda images: torch.tensor(outputs(kind, images, checkpoint)), data)
    predicted = torch.tensor(outputs(kind, data.test.images, checkpoint)).argmax(1)
    labels = data.test.labels
    if kind == "classifier":
        expected = float((predicted == labels).double().mean())
    else:
        pairs = [(predicted == k, labels == k) for k in range(3)]
        ratios = [float((a & b).sum() / (a | b).sum()) for a, b in pairs]
        expected = sum(ratios) / 3
    assert found == pytest.approx(expected)


def test_passes_alternate_and_warm_ones_are_not_timed():
    order: list[str] = []
    ticks = count()
    passes = {name: partial(order.append, name) for name in "abc"}
    medians = interleaved_medians(passes, lambda: next(ticks), seconds=0, warm=True)
    assert "".join(order[:12]) == "aabbccccbbaa"
    assert medians == dict.fromkeys("abc", 1)


class Branching(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float() if images.sum() > 0 else -images.float()


def test_a_network_that_cannot_be_traced_is_named_with_the_reason():
    with pytest.raises(UserError, match=r"torch\.export cannot trace this network \(.+\): choose"):
        traced(Branching(), torch.ones(2, 1, 8, 8, dtype=torch.uint8))


def test_selection():
    assert selection.select(["openvino", "onnx"], "classification") == ["openvino", "onnx", "int8"]
    assert selection.select(["torch"], "translation") == ["torch"]
    assert selection.all_formats("translation") == ["torch"]
    assert set(selection.PACKAGES) == set(names(selection.FORMATS))


@pytest.mark.parametrize(
    ("formats", "task", "sentence"),
    [
        (
            ["onxx"],
            "classification",
            "export is 'onxx': use one of int8, onnx, openvino, sparse, torch",
        ),
        (
            ["torch", "onnx"],
            "translation",
            r"onnx, which does not exist for translation.*\[torch\]",
        ),
        (["sparse"], "segmentation", r"sparse, which does not exist for segmentation: .*torch\]"),
        (["torch"], "regression", r"this task is regression: set it to \[\]"),
    ],
)
def test_wrong_selections_are_refused(formats, task, sentence):
    with pytest.raises(UserError, match=sentence):
        selection.select(formats, task)


def test_a_missing_package_is_named_before_anything_runs(monkeypatch):
    monkeypatch.setattr(selection, "find_spec", lambda name: None if name == "openvino" else name)
    sentence = r"openvino, which needs openvino: install it with pip install -e '\.\[export\]'"
    with pytest.raises(UserError, match=sentence):
        plan(export=["openvino"])


def test_params_are_refused_in_one_sentence():
    for wrong in (["onxx"], ["torch", "torch"]):
        with pytest.raises(UserError, match="export is"):
            plan(export=wrong)


def test_missing_artifacts_and_other_networks_are_refused(tmp_path):
    inputs = artifacts(tmp_path, "classifier")
    with pytest.raises(UserError, match=r"nothing.model\.safetensors is missing"):
        export(replace(inputs, model=tmp_path / "nothing"), ["torch"], tmp_path / "out")
    other = checkpoints("classifier")[0]
    meta = other.meta | {"classes": 3}
    save(tmp_path / "three" / "model.safetensors", Checkpoint(other.state, {}, meta))
    with pytest.raises(UserError, match=r"has the classes 3, but .* have 10"):
        export(replace(inputs, model=tmp_path / "three"), ["torch"], tmp_path / "out")
    api.save(nn.Linear(2, 3), tmp_path / "own" / "model.safetensors")
    with pytest.raises(
        UserError,
        match=r"own.model\.safetensors does not say its network and classes and channels and spars",
    ):
        export(replace(inputs, model=tmp_path / "own"), ["torch"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_final_soups_of_the_first_seed_are_exported():
    without = plan(seeds=[3, 4])
    wanted = plan(seeds=[3, 4], export=["torch"])
    added = {name: node for name, node in wanted.nodes.items() if name not in without.nodes}
    assert set(added) == {f"s3-sms_{rule}-p3-export" for rule in ("uniform", "greedy")}
    node = added["s3-sms_uniform-p3-export"]
    assert node.arguments["formats"] == ["torch"]
    formats = [name for name in node.modules if name.startswith("pipeline.export.formats.")]
    assert formats == ["pipeline.export.formats.torch"]
    models = ("s3-dense", "s3-sms_uniform-p3")
    measured = {f"{model}-{kind}" for model in models for kind in ("eval", "ood")}
    assert set(node.inputs) == {"data", *models, *measured}


def test_the_kernels_and_their_costs_are_dependencies_of_sparse_alone():
    tables = {"pipeline/inference/costs.csv", "pipeline/inference/sparse_conv.c"}
    for formats, used in ((["sparse"], tables), (["torch"], set())):
        node = plan(export=formats).nodes["s0-sms_uniform-p3-export"]
        assert tables & set(dvc_yaml.dependencies(node)) == used


def facts(root: Path, kind: str = "classifier") -> Facts:
    inputs = artifacts(root, kind)
    known = read_facts(inputs.model, inputs.data, KINDS[kind][0], inputs.metrics, [inputs.dense])
    return replace(known, metrics=known.metrics | {"sparsity": 0.9})


def test_the_card_has_what_was_measured(tmp_path):
    text = body(facts(tmp_path))
    for line in (
        "90.00 % of its prunable weights are zero",
        "of 2 of 3 retrained networks with one mask (merge rule `greedy`)",
        "| accuracy, validation (%) | 75.00 | 75.00 |",
        "| accuracy, test (%) | 50.00 | 50.00 |",
        "| accuracy on corrupted images, 15 kinds (%) | 37.50 |  |",
        "| worst recall of a class (%) | 25.00 (k1) |  |",
        "| multiply-accumulates | 1,000 |  |",
        "| multiply-accumulates with a weight != 0 | 126 |  |",
        "made up (synthetic)",
    ):
        assert line in text
    assert "Latency" not in text, "a section without numbers is left out"
    assert "Files" not in text
    assert len(text) < 5000, "MLflow's limit of a description"


def test_card_and_config_name_the_pattern(tmp_path):
    known = replace(facts(tmp_path), structure="2:4")
    assert "the pattern 2:4: 2 of every 4 consecutive weights along the input" in body(known)
    assert "pattern" not in body(replace(known, structure="filters"))
    file = tmp_path / "soup" / "model.safetensors"
    soup = load(file)
    save(file, Checkpoint(soup.state, soup.masks, soup.meta | {"structure": "2:4"}))
    inputs = Inputs(tmp_path / "data", tmp_path / "soup", tmp_path / "dense", [])
    export(inputs, ["sparse"], tmp_path / "out", seconds=0)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["structure"] == "2:4"
    assert "the pattern 2:4" in (tmp_path / "out" / "README.md").read_text()


def test_the_description_in_mlflow_is_the_card_without_its_heading(tmp_path):
    text = description(facts(tmp_path))
    assert text.startswith("`"), "the list of versions shows the first words as they are"
    assert "| accuracy, test (%) | &emsp;50.00 | &emsp;50.00 |" in text
    assert "| :-- | --: | --: |" in text
    assert f"# {facts(tmp_path).name}\n\n{text.replace('&emsp;', '')}" == body(facts(tmp_path))
    assert len(text) < 5000, "MLflow's limit of a description"


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [(0.037, "0.0370"), (0.18, "0.180"), (1.4561, "1.46"), (99.99, "100"), (1234.5, "1,234")],
)
def test_latency_has_three_digits(tmp_path, milliseconds, shown):
    latency = {1: {"PyTorch": (milliseconds, 2.0)}}
    assert f"| PyTorch | {shown} | 2.00 |" in body(replace(facts(tmp_path), latency=latency))


def test_the_card_of_segmentation_names_its_own_score(tmp_path):
    text = body(facts(tmp_path, "pixels"))
    assert "| mean IoU, test (%) | 50.00 | 50.00 |" in text
    assert "| worst IoU of a class (%) | 25.00 (k1) |  |" in text


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classifier", "pixels"])
def test_the_metadata_is_read_again_by_huggingface_hub(exported, kind):
    hub = pytest.importorskip("huggingface_hub")
    _, out = exported(kind)
    card = hub.ModelCard.load(out / "README.md")
    results = {
        (each.dataset_split, each.dataset_config, each.metric_name): each.metric_value
        for each in card.data.eval_results
    }
    worst, score = ("IoU", "mean IoU") if kind == "pixels" else ("recall", "accuracy")
    expected = {
        ("validation", None, score): 0.75,
        ("test", None, score): 0.5,
        ("test", None, f"worst {worst} of a class: k1"): 0.25,
    }
    if kind == "classifier":
        expected["test", "corrupted", "accuracy over 15 corruptions"] = 0.375
    assert results == expected
    assert card.data["sparsity"] == 0.9
    assert (card.data["macs"], card.data["sparse_macs"]) == (1000, 125.5)
    sizes = {file.name: file.stat().st_size for file in out.iterdir() if file.name != "README.md"}
    assert card.data["bytes"] == sizes
    latency = card.data["latency_ms"]["PyTorch"]
    assert set(latency) == {"batch_1", "batch_64"}
    assert all(time > 0 for times in latency.values() for time in (times["model"], times["dense"]))
    assert "1 thread" in card.data["latency_machine"]
    assert card.text.lstrip().startswith("# toy-soup\n")
    assert hub.ModelCardData(**_read_yaml(out)).to_dict() == card.data.to_dict()


def _read_yaml(out: Path) -> dict[str, Any]:
    """Return the metadata by another reader of YAML."""
    block = (out / "README.md").read_text().split("---\n")[1]
    metadata: dict[str, Any] = YAML(typ="safe").load(block)
    return metadata


@pytest.mark.slow
@pytest.mark.extras
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_computes_the_network(everywhere, kind):
    inputs, out = everywhere(kind)
    checkpoint = load(inputs.model / "model.safetensors")
    for name in ("torch", "onnx", "openvino"):
        runner = load_format(name).load(out, 1)
        for number in (1, 7):
            images = images_of(kind, number)
            found = runner(images.to(memory_format=torch.channels_last)).numpy()
            np.testing.assert_allclose(found, outputs(kind, images, checkpoint), atol=1e-4)
    images = images_of(kind, 7)
    expected = outputs(kind, images, checkpoint)
    found = load_format("int8").load(out, 1)(images).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9


@pytest.mark.slow
@pytest.mark.extras
@pytest.mark.parametrize("file", ["model.onnx", "model_int8.onnx"])
def test_onnx_takes_stored_images_in_batches_of_any_size(everywhere, file):
    import onnx

    _, out = everywhere("classifier")
    graph = onnx.load(out / file)
    onnx.checker.check_model(graph)
    assert {each.domain: each.version for each in graph.opset_import}[""] == 23
    (images,) = graph.graph.input
    tensor = images.type.tensor_type
    assert (images.name, tensor.elem_type) == ("images", onnx.TensorProto.UINT8)
    assert [each.dim_param or each.dim_value for each in tensor.shape.dim] == ["batch", 1, 8, 8]


@pytest.mark.slow
@pytest.mark.extras
def test_int8_has_a_scale_for_each_filter(everywhere):
    import onnx

    _, out = everywhere("classifier")
    graph = onnx.load(out / "model_int8.onnx").graph
    tensors = {each.name: each for each in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 9
    for node in convolutions:
        assert made_by[node.input[0]].op_type == "DequantizeLinear"
        weight, scale, *_ = made_by[node.input[1]].input
        assert tensors[weight].data_type == onnx.TensorProto.INT8
        values = onnx.numpy_helper.to_array(tensors[weight])
        assert list(tensors[scale].dims) == [len(values)]
        assert np.abs(values.astype(int)).max() <= 64  # 7 bits
    assert (out / "model_int8.onnx").stat().st_size < 0.6 * (out / "model.onnx").stat().st_size


@pytest.mark.slow
@pytest.mark.extras
def test_the_small_network_is_small_in_every_format(everywhere):
    _, small = everywhere("filters")
    _, masked = everywhere("classifier")
    for file in ("model.safetensors", "model.onnx", "openvino_model.bin", "model_int8.onnx"):
        assert (small / file).stat().st_size < 0.5 * (masked / file).stat().st_size


@pytest.mark.slow
@pytest.mark.extras
def test_the_card_has_the_times_of_every_format_and_the_score_of_int8(everywhere):
    import huggingface_hub

    _, out = everywhere("classifier")
    data = huggingface_hub.ModelCard.load(out / "README.md").data
    assert set(data["latency_ms"]) == {"PyTorch", "ONNX Runtime", "ONNX Runtime, int8", "OpenVINO"}
    (score,) = [r for r in data.eval_results if r.metric_name == "accuracy, ONNX Runtime, int8"]
    split = dataset(*KINDS["classifier"][1:]).test
    predicted = load_format("int8").load(out, 1)(split.images).argmax(1)
    assert score.metric_value == float((predicted == split.labels).double().mean())
    assert {"onnx", "openvino", "pytorch", "safetensors", "model-soup"} <= set(data.tags)


@pytest.mark.slow
@pytest.mark.extras
def test_openvino_sends_no_statistics(everywhere):
    everywhere("classifier")
    assert sys.modules["openvino_telemetry"] is None


@pytest.mark.extras
def test_a_network_that_onnx_does_not_know_is_named(tmp_path):
    data = dataset(*KINDS["classifier"][1:])
    source = source_of(checkpoints("classifier")[1], data)
    broken = replace(source, served=Branching())  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"resnet8 cannot be exported to ONNX \(.+\): leave onnx"):
        load_format("onnx").write(broken, tmp_path)


def test_the_stage_refuses_in_one_sentence(tmp_path):
    inputs = artifacts(tmp_path, "classifier")
    flags = ["--data", inputs.data, "--model", inputs.model, "--dense", inputs.dense]
    done = stage("export", *flags, "--formats", "onxx", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert (
        done.stderr == "error: export is 'onxx': use one of int8, onnx, openvino, sparse, torch.\n"
    )


def test_without_a_compiler_the_sparse_format_is_refused(tmp_path, monkeypatch):
    """Its latency would be PyTorch's, and stay in the cache after a compiler was installed."""
    monkeypatch.setenv("CC", "no-such-compiler")
    inputs = artifacts(tmp_path, "classifier")
    with pytest.raises(UserError, match="CC=no-such-compiler was not found: install gcc or clang"):
        export(inputs, ["sparse"], tmp_path / "out", seconds=0)
    assert not (tmp_path / "out").exists()


def run_with_exports(root: Path, formats: str) -> Project:
    """Run a graph with one phase of two candidates and the export of their soup."""
    project = Project.create(root)
    edits = {"m: 3": f"m: 2\nexport: {formats}", "phases: null": "phases: 1", "[sms, imp]": "[sms]"}
    for old, new in edits.items():
        project.edit("params.yaml", old, new)
    project.run("dvc", "repro")
    return project


@pytest.mark.slow
@pytest.mark.extras
def test_a_whole_run_exports_its_soup_to_the_runtimes(tmp_path):
    project = run_with_exports(tmp_path / "project", "[torch, onnx, openvino]")
    artifacts = project.root / "artifacts"
    data, soup = load_data(artifacts / "data"), read(artifacts / "s0-sms_uniform-p1")
    images = data.test.images
    with torch.no_grad():
        inputs = (images / 255 - data.mean.view(-1, 1, 1)) / data.std.view(-1, 1, 1)
        expected = torch.softmax(network(soup).eval()(inputs), 1).numpy()
    out = artifacts / "s0-sms_uniform-p1-export"
    for name in ("torch", "onnx", "openvino"):
        found = load_format(name).load(out, 1)(images).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)
    rounded = load_format("int8").load(out, 1)(images).numpy()
    assert (rounded.argmax(1) == expected.argmax(1)).mean() > 0.95
    stage = YAML(typ="safe").load(project.root / "stages/dvc.yaml")["stages"][out.name]
    code = {path for path in map(Path, stage["deps"]) if path.parent.match("export/formats")}
    assert {path.stem for path in code} == {"base", "torch", "onnx", "int8", "openvino"}


@pytest.mark.slow
def test_a_whole_run_exports_its_soup_and_the_command_any_network(tmp_path):
    project = run_with_exports(tmp_path / "project", "[torch]")
    out = project.root / "artifacts" / "s0-sms_uniform-p1-export"
    assert (out / "README.md").exists()
    command = (sys.executable, "-m", "pipeline", "export")
    said = project.run(*command, "--out", "best")
    assert said.startswith("s0-sms_uniform-p1 as torch in best")
    state = (out / "model.safetensors").read_bytes()
    assert (project.root / "best" / "model.safetensors").read_bytes() == state
    project.run(*command, "s0-p1-c1", "--out", "candidate")
    shown = (project.root / "candidate" / "README.md").read_text()
    assert "# digits-s0-p1-c1" in shown
    refusals = {
        ("--out", "no", "--formats", "onxx"): "export is 'onxx': use one of int8, onnx",
        ("nothing", "--out", "no"): "nothing is neither a stage",
        ("data", "--out", "no"): "data is a stage without a network",
        ("--out", "pipeline"): "pipeline exists and is no export",
        ("--out", "params.yaml/x"): "cannot be written",
        ("--out", "/proc/nothing/x"): "cannot be written",
    }
    for words, sentence in refusals.items():
        text = project.run(*command, *words, ok=False)
        assert text.startswith("error: ")
        assert sentence in text
        assert text.count("\n") == 1
    (project.root / "stages/dvc.yaml").unlink()
    project.edit("params.yaml", "m: 2", "m: 3")  # another graph, which has these candidates too
    project.run(*command, "s0-p1-c1", "--out", "candidate")
    project.edit("params.yaml", "target_sparsity: null", "target_sparsity: 0.7")
    text = project.run(*command, "--out", "best", ok=False)
    assert not (project.root / "stages/dvc.yaml").exists(), "the graph is not written"
    assert "no soup of the last phase is up to date: run `dvc repro`" in text
    assert (project.root / "best" / "model.safetensors").read_bytes() == state
