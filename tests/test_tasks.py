"""Tasks: maps of labels go with their images, and what is to be ignored counts nowhere."""

import base64
import json
import re
import zlib
from dataclasses import replace

import mlflow
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from pipeline.data.base import IGNORE, Dataset, Split, load, save
from pipeline.errors import UserError
from pipeline.tasks.base import Task, score
from pipeline.tasks.base import load as load_task
from pipeline.train.batches import Batches
from pipeline.train.criterion import CrossEntropy
from pipeline.train.loop import Settings, train
from pipeline.train.predict import count_correct
from pipeline.train.settings import Augmentation
from stages import evaluate
from tests.project import ROOT, TINY, Project


def pixels(count: int, height: int = 6, width: int = 8) -> Split:
    """Images of random grey values, to be told apart pixel by pixel: the label is the value."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(1, 5, (count, 1, height, width), generator=generator)
    return Split((40 * values).to(torch.uint8), values[:, 0])


def dataset(split: Split) -> Dataset:
    mean, std = torch.zeros(1), torch.ones(1)
    return Dataset(split, split, split, tuple("abcde"), mean, std, {}, "pixels", "segmentation")


def test_a_map_of_labels_is_moved_as_its_image_is():
    data = dataset(pixels(16))
    augmentation = Augmentation(crop_padding=2, flip=True, rotation=20.0)
    cpu = torch.device("cpu")
    for images, labels in Batches(data, 4, augmentation, seed=1, device=cpu).epoch():
        values = (images[:, 0] * 255 / 40).round().long()
        assert torch.equal(labels, torch.where(values == 0, IGNORE, values))
        assert (labels == IGNORE).any(), "the border that was cropped in does not count"


def test_only_what_counts_is_counted():
    class Threes(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            scores = torch.zeros(len(images), 5, *images.shape[2:])
            scores[:, 3] = 1.0
            return scores

    labels = torch.tensor([[[3, 3, 1, IGNORE]]])
    split = Split(torch.zeros(1, 1, 1, 4, dtype=torch.uint8), labels)
    counts = count_correct(Threes(), CrossEntropy(), split, torch.zeros(1), torch.ones(1))
    assert counts.tolist() == [2, 3]


def test_the_loop_learns_a_label_a_pixel():
    data = dataset(pixels(32))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, 1), nn.ReLU(), nn.Conv2d(16, 5, 1))
    history = train(model, data, Settings(8, 0.0), [0.3] * 80, seed=0)
    assert history[-1]["val_accuracy"] > 0.9 > history[0]["accuracy"]


def test_the_loop_learns_from_token_ids():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 5, (64, 7), generator=generator)
    split = Split(tokens, (tokens + 1) % 5)
    data = Dataset(split, split, split, tuple("abcde"), torch.empty(0), torch.empty(0), {})
    torch.manual_seed(0)

    class Next(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 5)

        def forward(self, tokens):
            return self.table(tokens).transpose(1, 2)

    history = train(Next(), data, Settings(8, 0.0), [1.0] * 80, seed=0)
    assert history[-1]["val_accuracy"] == 1.0


def test_the_loop_learns_what_the_task_says():
    """A task of another kind: one number an example, to be met in the square."""

    class Regression(Task):
        metric = "hits"

        def loss(self, scores, labels, *, smoothing=0.0, reduction="mean"):
            assert smoothing == 0
            return mse_loss(scores[:, 0], labels.float(), reduction=reduction)

        def correct(self, scores, labels):
            return ((scores[:, 0] - labels).abs() < 0.5).sum()

    levels = torch.arange(8).repeat(4)
    split = Split((levels * 30).to(torch.uint8)[:, None, None, None], levels)
    mean, std = torch.zeros(1), torch.ones(1)
    data = Dataset(split, split, split, ("a",), mean, std, {})
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1))
    settings = Settings(8, 0.0)
    history = train(model, data, settings, [0.1] * 200, seed=0, criterion=Regression())
    assert history[-1]["val_accuracy"] == 1.0 > history[0]["accuracy"]
    assert history[-1]["loss"] < 0.01


def test_a_data_set_keeps_its_task(tmp_path):
    save(dataset(pixels(4)), tmp_path)
    again = load(tmp_path)
    assert again.task == "segmentation"
    assert torch.equal(again.val.labels, pixels(4).labels)


def test_classification_keeps_logits_and_is_better_when_more_are_right():
    task = load_task("classification")
    split = Split(torch.zeros(3, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 1, 1]))
    kept = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    assert task.metric == "accuracy"
    assert score(task, kept, split, dataset(split)) == pytest.approx(2 / 3)
    with pytest.raises(UserError, match="diverged"):
        task.measure(kept * torch.nan, split, dataset(split))


def test_a_task_without_a_summary_of_its_own_reports_what_it_measures():
    split = Split(torch.zeros(3, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 1, 1]))
    kept = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    data = replace(dataset(split), task="brand_new")
    found = evaluate.measure_test_split(load_task("classification"), kept, data, groups=True)
    assert found.keys() == {"test_examples", "test_accuracy", "test_loss"}
    assert (found["test_examples"], found["test_accuracy"]) == (3, pytest.approx(2 / 3))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own
def test_the_task_that_the_documentation_writes_runs_through_the_whole_graph(tmp_path, monkeypatch):
    project = Project.create(tmp_path / "project")
    package = project.root / "pipeline"
    page = (ROOT / "docs" / "tasks.md").read_text()
    for room, block in zip(
        ("tasks", "data", "evaluate"), re.findall(r"```python\n(.*?)```", page, re.S), strict=True
    ):
        (package / room / "counting.py").write_text(block)
    recipe = TINY.replace("digits", "counting").replace("epochs: 2, batch_size: 128", "epochs: 8")
    recipe = recipe.replace("learning_rate: 0.1", "batch_size: 32, learning_rate: 0.005")
    (project.root / "recipes" / "tiny.yaml").write_text(f"{recipe}task: counting\n")
    project.run("dvc", "repro", SMS_MLFLOW="1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.root}/mlflow.db")
    soup = mlflow.pyfunc.load_model("models:/sms-tiny/1")
    digits = load(project.root / "artifacts" / "data").test
    metrics = json.loads((project.root / "reports" / "metrics.json").read_text())
    views = mlflow.get_experiment_by_name("sparse-model-soups").tags
    packed = json.loads(views["mlflow.sharedViewState.experiments"])["state"].partition(";")[2]
    assert b"test_score/sms_uniform" in zlib.decompress(base64.b64decode(packed))
    answered = (soup.predict(digits.images.numpy()).round() == digits.labels.numpy()).mean()
    assert answered == pytest.approx(metrics["sms_uniform"]["test_score"])
    assert "test_error" in (project.root / "reports" / "results.csv").read_text()
    assert metrics["sms_uniform"]["test_score"] > 0.3, "of ten numbers by chance: 0.1"
    text = (project.root / "reports" / "results.md").read_text()
    assert "Test exact" in text
    assert not re.search(r"accuracy(?!\.(png|csv))", text, re.I), "but for names of files"
    assert "## Missing" not in text
