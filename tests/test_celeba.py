"""Celeb-A's official files: splits, labels and groups as they say; what is wrong is named."""

import csv
import json
import sqlite3
import tarfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import celeba
from pipeline.data.build import prepare
from pipeline.errors import UserError
from tests import shared
from tests.project import Project

# name, partition, Male, Blond_Hair
FACES = [
    ("000001.jpg", 0, 1, -1),
    ("000002.jpg", 0, -1, 1),
    ("000003.jpg", 1, -1, -1),
    ("000004.jpg", 2, 1, 1),
    ("000005.jpg", 2, -1, -1),
    ("000007.jpg", 2, 1, -1),
    ("000008.jpg", 2, -1, 1),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write the official files for FACES, and one listed image that is not there."""
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    for number, (name, *_) in enumerate(FACES):
        pixels = np.full((218, 178, 3), 20 * number, np.uint8)
        Image.fromarray(pixels).save(folder / "img_align_celeba" / name)
    listed = [*FACES, ("000009.jpg", 0, 1, 1)]
    rows = [f"{name} -1  {blond} {male:2d}" for name, _, male, blond in listed]
    attributes = [str(len(listed)), "Bald Blond_Hair Male ", *rows]
    (folder / "list_attr_celeba.txt").write_text("\n".join(attributes) + "\n")
    partition = [f"{name} {part}" for name, part, *_ in listed]
    (folder / "list_eval_partition.txt").write_text("\n".join(partition) + "\n")
    return tmp_path


def test_each_image_has_its_split_label_and_group(root):
    raw = celeba.read(root, 16)
    assert (len(raw.train), len(raw.val), len(raw.test)) == (2, 1, 4)
    assert raw.train.images.shape == (2, 3, 16, 16)
    assert [raw.classes[label] for label in raw.train.labels] == ["non-blond", "blond"]
    groups = raw.groups["Male x Blond_Hair"]
    named = [groups.names[group] for group in groups.ids]
    assert named == ["male blond", "female non-blond", "male non-blond", "female blond"]
    assert [groups.names[group] for group in groups.train] == ["male non-blond", "female blond"]
    shades = raw.test.images.float().mean((1, 2, 3))
    assert shades.tolist() == pytest.approx([60, 80, 100, 120], abs=3), "images keep their rows"


def break_nothing_but(file: str, old: str, new: str, root: Path) -> None:
    path = root / "celeba" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("list_attr_celeba.txt", "Blond_Hair", "Blonde", "no column Blond_Hair"),
        ("list_attr_celeba.txt", "000002.jpg -1", "000002.jpg", "line 4 has 2 values"),
        ("list_attr_celeba.txt", "000002.jpg -1", "000002.jpg ?", "line 4"),
        ("list_eval_partition.txt", "000004.jpg 2\n", "", "000004.jpg must have a row"),
        ("list_eval_partition.txt", "000003.jpg 1", "000003.jpg 0", "no val image"),
    ],
)
def test_what_is_wrong_is_named(root, file, old, new, words):
    break_nothing_but(file, old, new, root)
    with pytest.raises(UserError, match=words):
        celeba.read(root, 16)


@pytest.mark.parametrize("file", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_missing_files_are_named_with_where_to_get_them(root, file):
    (root / "celeba" / file).unlink()
    with pytest.raises(UserError, match=rf"{file} is missing: .*non-commercial"):
        celeba.read(root, 16)


def test_missing_images_are_named_with_where_to_get_them(root):
    for image in (root / "celeba" / "img_align_celeba").iterdir():
        image.unlink()
    with pytest.raises(UserError, match=r"img_align_celeba has no \.jpg images"):
        celeba.read(root, 16)


@pytest.fixture
def pack() -> Path:
    """Return the archive of real faces, or skip."""
    return shared.pack("celeba.tar.xz")


@pytest.mark.slow
def test_the_shared_faces(tmp_path, pack):
    with tarfile.open(pack) as archive:
        shared.unpack(archive, tmp_path)
    data = prepare("celeba", celeba.read(tmp_path, None), seed=0)
    assert data.train.images.shape[1:] == (3, 64, 64)
    counts = data.groups["Male x Blond_Hair"].ids.bincount(minlength=4)
    assert counts.sum() == len(data.test)
    assert counts[3] == 24, "blond men are rare, and so few in the test split"


def few_faces(pack: Path, folder: Path, most: int) -> None:
    """Unpack the lists, and of each group of each split the first ``most`` faces."""
    with tarfile.open(pack) as archive:
        lists = [name for name in archive.getnames() if name.endswith(".txt")]
        shared.unpack(archive, folder, map(archive.getmember, lists))
        lines = (folder / "celeba" / "list_attr_celeba.txt").read_text().splitlines()
        places = [lines[1].split().index(name) + 1 for name in ("Male", "Blond_Hair")]
        kinds = {row[0]: [row[place] for place in places] for row in map(str.split, lines[2:])}
        parts = (folder / "celeba" / "list_eval_partition.txt").read_text().split()
        taken = Counter()
        for name, part in zip(parts[::2], parts[1::2], strict=True):
            kind = (part, *kinds[name])
            taken[kind] += 1
            if taken[kind] <= most:
                member = archive.getmember(f"celeba/img_align_celeba/{name}")
                shared.unpack(archive, folder, [member])


def table(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.slow
def test_a_whole_run_on_the_shared_faces(tmp_path, pack):
    """A small network on a few hundred faces: every group is in the tables, the page, MLflow."""
    project = Project.create(tmp_path / "project")
    few_faces(pack, project.root / "data", most=30)
    for old, new in (
        ("recipe: tiny", "recipe: celeba_resnet18"),
        ("m: 3", "m: 2\nstudies: [subgroups]\nstudy: {subgroups: {sparsities: [0.9, 0.95]}}"),
        ("epochs: null, schedule", "epochs: 1, schedule"),
        ("epochs: null, batch_size: null", "epochs: 2, batch_size: 32"),
        ("data: {path: null, size: null}", "data: {path: null, size: 16}"),
        ("network: {name: null", "network: {name: resnet8"),
    ):
        project.edit("params.yaml", old, new)
    project.run("dvc", "repro", SMS_MLFLOW="1")
    reports = project.root / "reports"

    soup = json.loads((reports / "metrics.json").read_text())["sms_uniform"]
    recalls = [soup[f"test_recall/{name}"] for name in celeba.GROUPS]
    assert soup["test_group_mean"] == pytest.approx(sum(recalls) / 4, abs=1e-5)
    assert soup["test_worst_group"] == min(recalls)
    results = table(reports / "results.csv")
    assert all(row["test_recall/male blond"] for row in results)
    groups = table(reports / "groups.csv")
    blond_men = [row for row in groups if (row["split"], row["group"]) == ("test", "male blond")]
    assert {row["n"] for row in blond_men} == {"24"}
    page = (reports / "results.md").read_text()
    assert "| recall (%) by Male x Blond_Hair | male blond, 24 images |" in page
    assert "## Missing" not in page

    study = (reports / "studies" / "subgroups.md").read_text()
    assert "## Missing" not in study
    for row in ("| - | dense |", "| 90 % | IMP |", "| 95 % | SMS uniform, best candidate |"):
        assert row in study
    assert "| 95 % | SMS uniform | paper | 98.91 ± 0.01 |" in study
    assert "network.name is resnet8, not torchvision.resnet18" in study
    with closing(sqlite3.connect(project.root / "mlflow.db")) as database:
        logged = {key for (key,) in database.execute("SELECT DISTINCT key FROM metrics")}
    assert {"test_recall/male blond", "test_group_mean", "test_macro_accuracy"} < logged
    assert {"train_recall/male blond", "test_error_change/female blond"} < logged
