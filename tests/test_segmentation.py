"""Segmentation: official files, the mean IoU of one confusion matrix, PSPNet, a whole small run."""

import csv
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from mlflow import MlflowClient
from PIL import Image
from sklearn.metrics import confusion_matrix, jaccard_score
from torch import nn
from torch.nn.functional import cross_entropy

from pipeline.config.experiment import RECIPES
from pipeline.data import camvid, cityscapes
from pipeline.data.base import IGNORE, Dataset, Split, load, save
from pipeline.data.build import prepare
from pipeline.errors import UserError
from pipeline.evaluate.iou import confusion, iou, mean_iou
from pipeline.evaluate.segmentation import summary
from pipeline.models._weights import load_weights
from pipeline.models.build import build
from pipeline.plan.plan import Plan
from pipeline.report.load import read
from pipeline.report.metric import Metric
from pipeline.report.paper import lookup
from pipeline.report.write import DRAWN, write
from pipeline.stagekit.merge_inputs import MergeInputs
from pipeline.stagekit.model_folder import write as write_model
from pipeline.storage.checkpoint import Checkpoint
from pipeline.tasks.base import load as load_task
from pipeline.track.summary import results_note as note
from pipeline.train.batches import Batches
from pipeline.train.batchnorm import reestimate
from pipeline.train.loop import Settings, train
from pipeline.train.predict import eval_batch_size, logits
from pipeline.train.settings import Augmentation
from tests import shared
from tests.project import Project
from tests.test_report import made, params

TASK = load_task("segmentation")


def picture(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """Write CamVid's layout: 8x12 frames whose grey is 20 times the label, void on the left."""
    for part, count in (("train", 3), ("val", 1), ("test", 2)):
        for number in range(count):
            labels = np.repeat(np.arange(12)[None], 8, axis=0)  # column c is of class c, 11 is void
            labels[number] = 3
            grey = np.repeat(20 * labels[..., None], 3, axis=2)
            name = f"000{number}TP_00{number}"
            picture(tmp_path / "camvid" / part / f"{name}.png", grey)
            picture(tmp_path / "camvid" / f"{part}annot" / f"{name}.png", labels)
    return tmp_path


@pytest.fixture
def cities(tmp_path: Path) -> Path:
    """Write Cityscapes' layout: two cities, 4x8 pixels with the official ids 0 to 31."""
    ids = np.arange(32).reshape(4, 8)
    for part, city in (("train", "aachen"), ("train", "ulm"), ("val", "lindau")):
        folder = tmp_path / "cityscapes"
        name = f"{city}_000000_000019"
        grey = np.repeat(7 * ids[..., None], 3, axis=2)
        picture(folder / f"leftImg8bit/{part}/{city}/{name}_leftImg8bit.png", grey)
        picture(folder / f"gtFine/{part}/{city}/{name}_gtFine_labelIds.png", ids)
        picture(folder / f"gtFine/{part}/{city}/{name}_gtFine_color.png", grey)
    return tmp_path


def test_camvid_keeps_splits_labels_and_what_does_not_count(streets):
    raw = camvid.read(streets, None)
    assert raw.val is not None
    assert (len(raw.train), len(raw.val), len(raw.test), len(raw.classes)) == (3, 1, 2, 11)
    assert raw.train.images.shape == (3, 3, 8, 12)
    assert raw.train.labels[1, 1].tolist() == [3] * 12
    assert raw.train.labels[1, 0].tolist() == [*range(11), IGNORE]
    counted = raw.train.labels >= 0
    assert torch.equal(
        raw.train.images[:, 0][counted].long(), 20 * raw.train.labels[counted].long()
    )


def test_maps_are_resized_without_inventing_labels(streets):
    raw = camvid.read(streets, 4)
    assert raw.train.images.shape == (3, 3, 4, 6)
    assert set(raw.train.labels.unique().tolist()) <= {IGNORE, *range(11)}
    assert raw.train.images[0, 0, 3].tolist() != sorted({20 * k for k in range(0, 12, 2)}), (
        "blurred"
    )


def test_cityscapes_evaluates_19_classes_and_ignores_the_rest(cities):
    raw = cityscapes.read(cities, 4)
    assert (len(raw.train), len(raw.test), raw.val, len(raw.classes)) == (2, 1, None, 19)
    assert raw.train.images.shape == (2, 3, 4, 8)
    named = {
        number: raw.classes[label]
        for number, label in enumerate(raw.test.labels.flatten().tolist())
        if label != IGNORE
    }
    # As in the official table of labels: id 31 is the train, 9 the parking that is not evaluated.
    assert named[7] == "road"
    assert named[26] == "car"
    assert named[31] == "train"
    assert not named.keys() & {0, 1, 6, 9, 10, 14, 15, 16, 18, 29, 30}
    assert len(named) == 17  # the last two, motorcycle and bicycle, have the ids 32 and 33


@pytest.mark.parametrize(
    ("read", "folder", "words"),
    [
        (camvid.read, "camvid/train", r"camvid/train has no images: .*for research"),
        (cityscapes.read, "cityscapes/leftImg8bit/val", r"val has no CITY.*non-commercial"),
    ],
)
def test_missing_data_is_named_with_where_to_get_it(tmp_path, streets, cities, read, folder, words):
    for file in sorted((tmp_path / folder).rglob("*.png")):
        file.unlink()
    with pytest.raises(UserError, match=words):
        read(tmp_path, None)


def test_what_is_wrong_with_a_file_is_named(streets):
    maps = streets / "camvid" / "testannot"
    picture(maps / "0000TP_000.png", np.zeros((8, 12, 3)))
    with pytest.raises(UserError, match=r"0000TP_000\.png has mode RGB"):
        camvid.read(streets, None)
    picture(maps / "0000TP_000.png", np.zeros((8, 11)))
    with pytest.raises(UserError, match=r"0000TP_000\.png is .* but its image"):
        camvid.read(streets, None)
    (maps / "0000TP_000.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"0000TP_000\.png cannot be read"):
        camvid.read(streets, None)
    (maps / "0000TP_000.png").unlink()
    with pytest.raises(UserError, match=r"0000TP_000\.png is missing, the map of"):
        camvid.read(streets, None)
    picture(maps / "0000TP_000.png", np.zeros((6, 6)))
    picture(streets / "camvid" / "test" / "0000TP_000.png", np.zeros((6, 6, 3)))
    with pytest.raises(UserError, match=r"12x8 pixels after resizing, but .* is 6x6"):
        camvid.read(streets, None)


def test_small_maps_survive_the_file_and_reach_the_loss_as_whole_numbers(streets, tmp_path):
    data = prepare("camvid", camvid.read(streets, None), seed=0)
    save(data, tmp_path / "data")
    again = load(tmp_path / "data")
    assert (again.task, again.groups) == ("segmentation", {})
    assert again.test.labels.dtype == torch.int8
    assert torch.equal(again.test.labels, data.test.labels)
    batches = Batches(again, 2, Augmentation(), seed=0, device=torch.device("cpu"))
    (labels,) = [labels for _, labels in batches.epoch()]
    assert labels.dtype == torch.int64
    assert IGNORE in labels


def test_the_confusion_matrix_by_hand():
    labels = torch.tensor([[[0, 0, 1, IGNORE]], [[2, 1, 1, 1]]])
    predicted = torch.tensor([[[0, 1, 1, 2]], [[2, 0, 1, 1]]])
    counts = confusion(predicted, labels, 3)
    assert counts[0].tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert counts[1].tolist() == [[0, 0, 0], [1, 2, 0], [0, 0, 1]]
    # 0: 1 of 2 + 2 - 1; 1: 3 of 4 + 4 - 3; 2: 1 of 1
    assert iou(counts.sum(0)).tolist() == pytest.approx([1 / 3, 3 / 5, 1.0])
    assert float(mean_iou(counts[0])) == pytest.approx((1 / 2 + 1 / 2) / 2), "class 2 is nowhere"


maps = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@given(maps)
def test_iou_is_that_of_scikit_learn(pairs):
    truth, predicted = (torch.tensor(side) for side in zip(*pairs, strict=True))
    counts = confusion(predicted[None], truth[None], 5)[0]
    assert counts.tolist() == confusion_matrix(truth, predicted, labels=range(5)).tolist()
    there = sorted(set(truth.tolist()) | set(predicted.tolist()))
    expected = jaccard_score(truth, predicted, labels=there, average=None, zero_division=0)
    found = iou(counts)
    assert found[there].tolist() == pytest.approx(expected.tolist())
    assert float(mean_iou(counts)) == pytest.approx(expected.mean())


@given(maps)
def test_iou_lies_between_nothing_and_recall(pairs):
    truth, predicted = (torch.tensor(side) for side in zip(*pairs, strict=True))
    counts = confusion(predicted[None], truth[None], 5)[0].double()
    found, recall = iou(counts), counts.diagonal() / counts.sum(1)
    known = ~found.isnan() & ~recall.isnan()
    assert (found[known] <= recall[known]).all()
    assert 0 <= float(mean_iou(counts)) <= 1
    assert (float(mean_iou(counts)) == 1) == torch.equal(truth, predicted)


class Table(nn.Module):
    """Scores each pixel by its grey value alone; its two classes are drawn to differ in loss."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.scores = nn.Parameter(torch.randn(3, 256))

    def forward(self, images):
        values = (images[:, 0] * 255).round().long()
        return self.scores[:, values].transpose(0, 1)


@pytest.fixture
def dataset() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (7, 1, 5, 6), generator=generator, dtype=torch.uint8)
    labels = torch.randint(-1, 3, (7, 5, 6), generator=generator)
    split = Split(images, torch.where(labels < 0, IGNORE, labels).to(torch.int8))
    zero, one = torch.zeros(1), torch.ones(1)
    return Dataset(split, split, split, ("a", "b", "c"), zero, one, {}, "grey", "segmentation")


def test_the_task_measures_one_matrix_of_the_whole_set(dataset):
    model, split = Table(), dataset.test
    kept = TASK.predict(model, dataset, split)
    assert kept.shape == (7, 3, 4)
    scores = logits(model, split.images, dataset.mean, dataset.std)
    counted = split.labels.flatten() >= 0
    truth = split.labels.flatten()[counted].long()
    guess = scores.argmax(1).flatten()[counted]
    measured = TASK.measure(kept, split, dataset)
    assert measured["mean_iou"] == pytest.approx(jaccard_score(truth, guess, average="macro"))
    assert measured["loss"] == pytest.approx(float(cross_entropy(scores, split.labels.long())))
    found = summary(kept, split, dataset)
    assert found["test_mean_iou"] == measured["mean_iou"]
    assert found["test_accuracy"] == pytest.approx(float((truth == guess).double().mean()))
    assert found["test_loss"] == pytest.approx(measured["loss"])
    by_class = found["groups"]["class"]["groups"]
    expected = jaccard_score(truth, guess, average=None)
    assert [one["iou"] for one in by_class.values()] == pytest.approx(expected.tolist())
    assert found["worst_class"] == pytest.approx(expected.min())
    assert all(one["low"] < one["iou"] < one["high"] for one in by_class.values())
    assert TASK.ensemble([kept, kept]) is None


def test_the_interval_is_the_spread_of_resampled_images():
    """100 images, a class right in half of them: IoU is the drawn share, 0.5 +- 1.96 * 0.05."""
    kept = torch.zeros(100, 2, 3, dtype=torch.float64)
    kept[:50, 0, 0] = kept[50:, 0, 1] = 9.0
    split = Split(torch.zeros(100, 1, 3, 3, dtype=torch.uint8), torch.zeros(100, 3, 3).long())
    data = Dataset(split, split, split, ("a", "b"), torch.zeros(1), torch.ones(1), {})
    found = summary(kept, split, data)["groups"]["class"]["groups"]
    assert found["a"]["n"] == 100
    assert (found["a"]["low"], found["a"]["high"]) == pytest.approx((0.402, 0.598), abs=0.02)
    assert found["b"] == {"iou": 0.0, "n": 0, "low": 0.0, "high": 0.0}


def test_soups_of_segmenters_can_be_learned(streets, tmp_path):
    data = prepare("camvid", camvid.read(streets, None), seed=0)
    meta = {"network": "pspnet_small", "classes": 11, "channels": 3, "sparsity": 0.0}
    folders = [tmp_path / name for name in ("c0", "c1")]
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        state = build("pspnet_small", 11, 3).state_dict()
        write_model(folder, Checkpoint(state, {}, meta), data, torch.device("cpu"))
    given = MergeInputs(folders, data, torch.device("cpu"))
    slopes = given.loss.gradient(torch.tensor([0.5, 0.5], dtype=torch.float64), 0)
    assert slopes.isfinite().all()
    assert slopes.sum().abs() < 1e-6 < slopes.abs().max()


def test_outputs_that_are_no_numbers_are_refused(dataset):
    model = Table()
    nn.init.constant_(model.scores, torch.nan)
    with pytest.raises(UserError, match="diverged"):
        TASK.measure(TASK.predict(model, dataset, dataset.test), dataset.test, dataset)


def test_large_images_make_small_batches():
    sizes = {(8, 8): 256, (128, 128): 256, (512, 1024): 8, (2048, 4096): 2}
    for (height, width), batch in sizes.items():
        images = torch.empty(1, 1, 1, 1, dtype=torch.uint8).expand(1, 1, height, width)
        assert eval_batch_size(images) == batch
    assert eval_batch_size(torch.zeros(3, 7, dtype=torch.int64)) == 64, "sentences"


@pytest.mark.parametrize(("height", "width"), [(48, 64), (45, 61)])
def test_a_score_for_every_pixel(height, width):
    model = build("pspnet_small", 11, 3)
    images = torch.randn(2, 3, height, width)
    assert model(images).shape == (2, 11, height, width)
    assert model.backbone(images).shape[1:] == (128, -(-height // 8), -(-width // 8))


def test_the_small_network_has_as_many_weights_as_it_says():
    count = sum(parameter.numel() for parameter in build("pspnet_small", 11, 3).parameters())
    assert count == 786_123
    assert f"{count:,}" in (RECIPES.parent / "pipeline/models/pspnet_small.py").read_text()


@pytest.mark.slow
def test_the_large_network_is_the_papers_and_takes_a_pretrained_backbone(tmp_path):
    """An auxiliary head (3x3 to 256, BatchNorm, 1x1 to 19) makes it the 68 M of Table 3."""
    model = build("pspnet", 19, 3)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert f"{count:,}" in (RECIPES.parent / "pipeline/models/pspnet.py").read_text()
    auxiliary = 1024 * 256 * 9 + 2 * 256 + 256 * 19 + 19
    assert round((count + auxiliary) / 1e6) == 68
    from torchvision.models import resnet101

    pretrained, mixed = resnet101(weights=None), model.mix[0].weight.clone()
    torch.save(pretrained.state_dict(), tmp_path / "resnet101.pth")
    load_weights(model, tmp_path / "resnet101.pth")
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, pretrained.state_dict()[name])
    assert torch.equal(model.mix[0].weight, mixed)
    assert model.eval()(torch.randn(1, 3, 40, 48)).shape == (1, 19, 40, 48)


def test_weights_that_are_no_backbone_are_refused(tmp_path):
    torch.save(build("resnet20", 10, 3).state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not fit the network: its backbone"):
        load_weights(build("pspnet_small", 11, 3), tmp_path / "other.pth")


def test_the_pyramid_sees_the_whole_image():
    """Without the pooled maps a pixel far away could not change what is seen here."""
    torch.manual_seed(0)
    model = build("pspnet_small", 3, 1).eval()
    images = torch.randn(1, 1, 256, 256, requires_grad=True)
    model(images)[0, :, 0, 0].sum().backward()
    assert images.grad is not None
    assert images.grad[0, 0, -8:, -8:].abs().sum() > 0


def test_one_image_a_batch_is_refused():
    with pytest.raises(UserError, match=r"pretrain\.batch_size must be at least 2"):
        build("pspnet_small", 11, 3).train()(torch.randn(1, 3, 32, 32))


def test_batchnorm_is_reestimated_in_the_pyramid_too():
    """The statistics of the 1x1 branch are the mean and variance of its own inputs."""
    torch.manual_seed(0)
    model = build("pspnet_small", 3, 1)
    images = torch.randint(256, (6, 1, 24, 32), dtype=torch.uint8)
    mean, std = torch.tensor([0.5]), torch.tensor([0.25])
    seen = []
    model.pyramid[0][0].register_forward_hook(lambda _, __, output: seen.append(output.detach()))
    reestimate(model, images, mean, std)
    (inputs,) = seen
    norm = model.pyramid[0][1]
    assert inputs.shape == (6, 32, 1, 1)
    assert torch.allclose(norm.running_mean, inputs.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(norm.running_var, inputs.var((0, 2, 3)), atol=1e-6)


def test_equal_seeds_train_equal_bits(streets):
    """Pooling and resizing have backward passes that could add up in another order each time."""
    data = prepare("camvid", camvid.read(streets, 24), seed=0)
    settings_, found = Settings(2, 5e-4, augmentation=Augmentation(flip=True)), []
    for _ in range(2):
        torch.manual_seed(0)
        model = build("pspnet_small", 11, 3)
        mask = torch.ones_like(model.mix[0].weight, dtype=torch.bool)
        mask[:, ::2] = False
        train(model, data, settings_, [0.1] * 3, seed=1, masks={"mix.0.weight": mask})
        assert not model.mix[0].weight[:, ::2].any()
        found.append(model.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize("recipe", ["cityscapes_pspnet", "camvid_pspnet"])
def test_recipes_are_segmentation(recipe):
    own = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    assert own["task"] == "segmentation"


def renamed(value):
    """Return metrics of a classifier as those of a segmentation network would be called."""
    names = {"test_accuracy": "test_mean_iou", "val_accuracy": "val_mean_iou", "recall": "iou"}
    if not isinstance(value, dict):
        return value
    return {names.get(key, key): renamed(inner) for key, inner in value.items()}


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> tuple[Plan, Path]:
    folder = tmp_path_factory.mktemp("reported")
    plan = made(folder / "artifacts", params("camvid_pspnet", seeds=[0, 1]))
    evaluated = {row.evaluate for row in plan.rows}
    for file in (folder / "artifacts").glob("*/metrics.json"):
        metrics = renamed(json.loads(file.read_text()))
        if file.parent.name in evaluated:
            metrics |= {"metric": "mean_iou", "test_accuracy": 0.125}
            del metrics["calibration_error"]
        file.write_text(json.dumps(metrics))
    write(plan, folder / "artifacts", folder / "reports")
    return plan, folder


def header(file: Path) -> set[str]:
    return set(file.read_text().splitlines()[0].split(","))


def test_a_report_calls_the_score_by_its_name(reported):
    reports = reported[1] / "reports"
    page = (reports / "results.md").read_text()
    for words in (
        "## Test mean IoU",
        "worst IoU (%)",
        "validation mean IoU",
        "![IoU of each group",
    ):
        assert words in page
    for line in page.splitlines():
        said = line.replace("figures/accuracy.png", "").replace("`accuracy.csv`", "")
        assert "ccura" not in said, line
        assert "ecall" not in said, line
    metrics = json.loads((reports / "metrics.json").read_text())
    assert metrics["metric"] == "mean_iou"
    assert {"test_score", "over_best_candidate"} < metrics["sms_uniform"].keys()
    assert "test_accuracy" not in metrics["sms_uniform"]


def test_a_report_keeps_the_score_and_the_share_of_pixels_apart(reported):
    reports = reported[1] / "reports"
    scores = {"metric", "test_score", "val_score", "best_candidate_test_score"}
    assert scores < header(reports / "results.csv")
    assert "test_score" in header(reports / "candidates.csv")
    assert {"score", "low", "high"} < header(reports / "groups.csv")
    assert {"accuracy", "val_accuracy"} < header(reports / "training.csv"), "pixels, every epoch"
    with (reports / "accuracy.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["test_accuracy"] for row in rows} == {"0.125"}
    assert not any(row["test_score"] == "0.125" for row in rows)
    summary_of = (reports / "results_summary.csv").read_text()
    assert "ensemble_test_score" in summary_of
    assert "test_accuracy" not in summary_of


def test_figures_call_the_score_by_its_name(reported):
    plan, folder = reported
    results = read(plan, folder / "artifacts")
    said = []
    for draw in (DRAWN["accuracy"], DRAWN["candidates"], DRAWN["groups"]):
        said += [text.get_text() for text in draw(results).findobj(Text)]
    assert "test mean IoU (%)" in said
    assert any(text.startswith("IoU (%);") for text in said)
    assert not any("ccurac" in text or "ecall" in text for text in said)


@pytest.mark.parametrize(
    ("name", "label", "plural", "group"),
    [
        ("accuracy", "accuracy", "accuracies", "recall"),
        ("mean_iou", "mean IoU", "mean IoU", "IoU"),
        ("bleu", "BLEU", "BLEU", "recall"),
        ("exact_match", "exact match", "exact match", "recall"),
    ],
)
def test_words_of_a_metric(name, label, plural, group):
    metric = Metric(name)
    assert (metric.label, metric.plural, metric.group) == (label, plural, group)


@given(st.sampled_from(["accuracy", "mean_iou", "bleu"]), st.sampled_from(["train", "val", "test"]))
def test_the_score_has_one_name_in_the_report_and_all_else_keeps_its_own(name, split):
    own = {f"{split}_{name}": 0.5, "test_macro_accuracy": 0.25, "groups": {name: {"n": 1}}}
    found = Metric(name).rename_scores({**own, "best_candidate": {f"{split}_{name}": 0.75}})
    assert found == {
        f"{split}_score": 0.5,
        "test_macro_accuracy": 0.25,
        "groups": {name: {"n": 1}},
        "best_candidate": {f"{split}_score": 0.75},
    }


def test_the_note_in_mlflow_has_the_score():
    row = {"method": "imp", "phase": 1, "seed": 0, "sparsity": 0.9, "test_accuracy": 0.9}
    row |= {"metric": "mean_iou", "test_score": 0.45}
    assert "| method | sparsity | test mean iou |" in note([row])
    assert "45.00 %" in note([row])


def test_a_network_of_pixels_is_exported_with_its_softmax(tmp_path):
    """MLflow's graph: any number of images, probabilities of every pixel."""
    from pipeline.export.served import Served

    module = Served(build("pspnet_small", 3, 3), TASK, torch.zeros(3), torch.ones(3)).eval()
    images = torch.randint(256, (4, 3, 24, 32), dtype=torch.uint8)
    batch = {0: torch.export.Dim("batch", min=1)}
    graph = torch.export.export(module, (images,), dynamic_shapes=(batch,)).module()
    with torch.inference_mode():
        found = graph(images[:3])
    assert found.shape == (3, 3, 24, 32)
    assert torch.allclose(found, module(images[:3]), atol=1e-6)
    assert torch.allclose(found.sum(1), torch.ones(3, 24, 32))


@pytest.mark.parametrize(
    ("method", "phase", "role", "mean"),
    [
        ("sms_uniform", 1, "model", 58.19),
        ("sms_uniform", 1, "best_candidate", 57.87),
        ("imp_mx", 1, "model", 58.47),
        ("dense", 0, "model", 58.3),
    ],
)
def test_rows_of_table_9_stand_beside_the_recipe(method, phase, role, mean):
    own = params("cityscapes_pspnet", network={"weights": "resnet101.pth"})
    found = lookup.lookup(own, method, phase, role)
    assert found is not None
    assert found.mean == mean


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own
def test_a_whole_run_on_the_shared_street_scenes(tmp_path):
    project = Project.create(tmp_path / "project")
    with tarfile.open(shared.pack("camvid.tar")) as archive:
        folders: dict[Path, list[tarfile.TarInfo]] = {}
        for member in sorted(archive, key=lambda member: member.name):
            if member.isfile():
                folders.setdefault(Path(member.name).parent, []).append(member)
        some = [member for members in folders.values() for member in members[:24]]
        shared.unpack(archive, project.root / "data", some)
    for old, new in (
        ("recipe: tiny", "recipe: camvid_pspnet"),
        ("m: 3", "m: 2"),
        ("epochs: null, schedule", "epochs: 1, schedule"),
        ("epochs: null, batch_size: null", "epochs: 2, batch_size: 8"),
        ("data: {path: null, size: null}", "data: {path: null, size: 24}"),
    ):
        project.edit("params.yaml", old, new)
    project.run("dvc", "repro", SMS_MLFLOW="1")
    metrics = json.loads((project.root / "reports" / "metrics.json").read_text())
    assert 0 < metrics["sms_uniform"]["test_score"] < 1
    page = (project.root / "reports" / "results.md").read_text()
    assert "mean IoU" in page
    assert "## Missing" not in page
    client = MlflowClient(f"sqlite:///{project.root}/mlflow.db")
    soup = client.get_model_version("sms-camvid_pspnet", "1")
    assert "val_mean_iou" in soup.tags
