"""One's own images through the whole graph, on a few hundred real ones of CIFAR-10."""

import csv
import tarfile
from pathlib import Path

import pytest

from pipeline.repro import _share
from tests import shared
from tests.project import Project

IMAGES = {"train": 60, "test": 20}  # per class

PARAMS = """\
recipe: image_folder
seed: 0
m: 2
phases: 1
target_sparsity: 0.5
methods: [sms]
merge: [uniform]
evaluate: {corruptions: none}
data: {path: my_images, size: 32}
network: {name: resnet8}
pretrain: {epochs: 6, batch_size: 32}
retrain: {epochs: 2}
"""


def few_images(pack: Path, folder: Path) -> None:
    """Unpack the first images of every class of ``pack`` into ``folder``/{train,test}/CLASS."""
    taken: dict[tuple[str, str], int] = {}
    with tarfile.open(pack) as archive:
        for member in archive:
            parts = Path(member.name).parts
            if not member.isfile() or len(parts) != 4:
                continue
            _, split, label, name = parts
            taken[split, label] = taken.get((split, label), 0) + 1
            if taken[split, label] <= IMAGES[split]:
                target = folder / split / label / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())


def test_an_experiment_in_a_copy_sees_the_images_of_the_main_checkout(tmp_path, monkeypatch):
    """As those of ``dvc queue`` do, which names the main checkout in DVC_ROOT."""
    main, copy = tmp_path / "main", tmp_path / "copy"
    (main / "mine" / "train").mkdir(parents=True)
    copy.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(main))
    assert _share(copy, "mine")
    assert (copy / "mine" / "train").is_dir()
    assert not _share(copy, "absent")
    assert not (copy / "absent").is_symlink()


@pytest.mark.slow
def test_a_folder_of_real_images_is_learned(tmp_path):
    pack = shared.pack("cifar10.tar.xz")
    project = Project.create(tmp_path / "project")
    few_images(pack, project.root / "my_images")
    with (project.root / ".gitignore").open("a") as file:
        file.write("/my_images\n")
    (project.root / "params.yaml").write_text(PARAMS)
    project.run("dvc", "repro")
    with (project.root / "reports" / "results.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert float(rows["dense"]["test_score"]) > 0.15, "guessing is 0.1 of ten classes"
    assert float(rows["sms_uniform"]["test_score"]) > 0.15
    assert float(rows["sms_uniform"]["sparsity"]) == 0.5

    image = next((project.root / "my_images" / "train").rglob("*.jpg"))
    image.write_bytes(image.read_bytes()[:100])
    output = project.run("dvc", "repro", ok=False)
    assert f"{image.name}" in output
    assert "Traceback" not in output

    project.edit("params.yaml", "path: my_images", "path: no_images")
    output = project.run("dvc", "repro", ok=False)
    assert "error: params.yaml: no_images does not exist, but a stage reads it" in output
