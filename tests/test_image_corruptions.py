"""Corrupted sets of image files (ImageNet-C), sets made while they are read, and resumption."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import code_files
from pipeline.config import experiment
from pipeline.data.base import Dataset, Split
from pipeline.data.base import load as load_data
from pipeline.data.base import save as save_data
from pipeline.data.formats import prefetch
from pipeline.errors import UserError
from pipeline.evaluate.corruptions import generated_set
from pipeline.evaluate.corruptions.constants import NAMES_15, NAMES_19, SEVERITIES
from pipeline.evaluate.corruptions.folder_set import FolderSet
from pipeline.evaluate.corruptions.generate import generate
from pipeline.evaluate.corruptions.generated_set import GeneratedSet, too_large
from pipeline.evaluate.corruptions.manifest import list_files
from pipeline.evaluate.corruptions.npy_set import NpySet
from pipeline.evaluate.corruptions.open_set import open_set
from pipeline.evaluate.partial_results import PartialResults, side_file
from pipeline.evaluate.robustness import robustness
from pipeline.models.build import build
from pipeline.plan.build import build as plan_of
from pipeline.plan.dvc_yaml import dependencies
from pipeline.plan.plan import Plan
from pipeline.storage.checkpoint import Checkpoint
from pipeline.storage.checkpoint import save as save_checkpoint
from pipeline.train.predict import logits
from stages import corrupt, list_corruptions
from stages import robustness as stage
from tests import shared
from tests.project import ROOT, Project, ran

ARCHIVES = {  # what each of ImageNet-C's five archives unpacks
    "noise": NAMES_15[:3],
    "blur": NAMES_15[3:7],
    "weather": NAMES_15[7:11],
    "digital": NAMES_15[11:],
    "extra": NAMES_19[15:],
}
WNIDS = ("n01440764", "n01443537", "n02084071")


def put(path: Path, pixels: np.ndarray) -> None:
    """Write an image without loss: Pillow reads a PNG whatever its file is called."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")


def tree(
    root: Path, *, grouped: bool = False, names=NAMES_19, each: int = 2, side: int = 8
) -> Path:
    """Write a set whose images say which corruption, severity, and place among all they are."""
    group = {name: archive for archive, inside in ARCHIVES.items() for name in inside}
    for number, name in enumerate(names):
        for severity in SEVERITIES:
            place = root / group[name] / name if grouped else root / name
            for label, wnid in enumerate(WNIDS):
                for k in range(each):
                    pixels = np.zeros((side, side, 3), np.uint8)
                    pixels[:] = number, severity, label * each + k
                    put(place / str(severity) / wnid / f"ILSVRC2012_val_{k:08}.JPEG", pixels)
    return root


def folders(root: Path, classes=WNIDS, size: int = 8) -> FolderSet:
    return FolderSet(root, list_files(root, classes)["cells"], classes, size)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Return a whole set, three classes of two images, which tests only read."""
    return tree(tmp_path_factory.mktemp("small") / "ImageNet-C")


# --- ImageNet-C's layout ---------------------------------------------------------------------


@pytest.mark.parametrize("grouped", [False, True])
def test_image_files_come_by_corruption_and_severity_however_the_archives_lie(tmp_path, grouped):
    found = folders(tree(tmp_path / "ImageNet-C", grouped=grouped))
    assert tuple(found.names) == NAMES_19
    assert not found.synthetic
    for number, name in enumerate(NAMES_19):
        for severity in SEVERITIES:
            ((images, labels),) = found.batches(name, severity)
            assert (images.dtype, images.shape) == (torch.uint8, (6, 3, 8, 8))
            assert (images[:, 0] == number).all()
            assert (images[:, 1] == severity).all()
            assert images[:, 2, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
            assert labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_class_is_known_by_its_name_and_others_are_left_alone(small):
    two = folders(small, classes=(WNIDS[2], WNIDS[0]))
    ((images, labels),) = two.batches("fog", 3)
    assert images[:, 2, 0, 0].tolist() == [4, 5, 0, 1]
    assert labels.tolist() == [0, 0, 1, 1]


def test_batches_are_cut_in_order_and_only_a_few_are_in_memory(small, monkeypatch):
    monkeypatch.setattr("pipeline.evaluate.corruptions.folder_set.set_batch_size", lambda *_: 4)
    batches = list(folders(small).batches("snow", 1))
    assert [len(labels) for _, labels in batches] == [4, 2]
    assert torch.cat([images[:, 2, 0, 0] for images, _ in batches]).tolist() == [0, 1, 2, 3, 4, 5]


def test_images_of_the_right_size_are_taken_as_they_are_and_others_resized(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    root = tree(tmp_path / "set", each=1)
    for name in NAMES_19:
        for severity in SEVERITIES:
            put(root / name / str(severity) / WNIDS[0] / "ILSVRC2012_val_00000000.JPEG", pixels)
    ((same, _),) = folders(root, WNIDS[:1], size=12).batches("fog", 1)
    np.testing.assert_array_equal(same[0].permute(1, 2, 0).numpy(), pixels)
    ((half, _),) = folders(root, WNIDS[:1], size=6).batches("fog", 1)
    expected = Image.fromarray(pixels).resize((6, 6), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(half[0].permute(1, 2, 0).numpy(), np.asarray(expected))


def no_type(root):
    shutil.rmtree(root / "frost")


def one_extra_type(root):
    for name in ("spatter", "saturate", "gaussian_blur"):
        shutil.rmtree(root / name)


def no_severity(root):
    shutil.rmtree(root / "fog" / "4")


def no_class(root):
    shutil.rmtree(root / "fog" / "4" / WNIDS[1])


def no_image(root):
    for file in (root / "fog" / "4" / WNIDS[1]).iterdir():
        file.unlink()


def one_image_less(root):
    next((root / "fog" / "4" / WNIDS[1]).iterdir()).unlink()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (no_type, r"lacks frost: it must hold .*TYPE/SEVERITY/CLASS.*zenodo\.org, licence CC BY"),
        (one_extra_type, r"lacks gaussian_blur, spatter, saturate"),
        (no_severity, r"fog.4 has no folder n01440764.*zenodo"),
        (no_class, r"fog.4 has no folder n01443537"),
        (no_image, r"fog.4.n01443537 holds no image"),
        (one_image_less, r"fog.4 has 5 images .*others have 6"),
    ],
)
def test_what_is_not_whole_is_named_before_anything_is_evaluated(tmp_path, damage, named):
    root = tree(tmp_path / "set")
    damage(root)
    with pytest.raises(UserError, match=named):
        list_files(root, WNIDS)


def test_without_the_extra_archive_there_is_no_mean_of_19(tmp_path):
    found = folders(tree(tmp_path / "set", names=NAMES_15, each=1))
    metrics = robustness(lambda images: torch.eye(3)[[0] * len(images)], found)
    assert metrics["mean_15"] == pytest.approx(1 / 3)
    assert "mean_19" not in metrics
    assert (metrics["images"], metrics["synthetic"]) == (3, False)


def test_files_that_changed_since_they_were_listed_are_refused(tmp_path):
    found = folders(tree(tmp_path / "set", each=1))
    file = next((tmp_path / "set" / "fog" / "2" / WNIDS[0]).iterdir())
    file.write_bytes(file.read_bytes() + b" ")
    assert len(list(found.batches("fog", 1))) == 1
    with pytest.raises(UserError, match=r"fog.2 has changed since it was listed"):
        list(found.batches("fog", 2))


def test_a_damaged_image_is_named(tmp_path):
    root = tree(tmp_path / "set", each=1)
    file = next((root / "fog" / "2" / WNIDS[0]).iterdir())
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UserError, match=r"fog.2.n01440764.ILSVRC2012_val_00000000\.JPEG"):
        list(folders(root).batches("fog", 2))


# --- sets that are generated while they are read --------------------------------------------


def clean(n: int = 70, side: int = 40) -> Split:
    """Smooth colourful images with noise, and labels of three classes."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, side)[:, None] + np.zeros((n, 3, side, side))
    images = (ramp + rng.integers(0, 50, ramp.shape)).astype(np.uint8)
    return Split(torch.from_numpy(images), torch.arange(n) % 3)


def whole(found, name: str, severity: int) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(found.batches(name, severity))
    return torch.cat([images for images, _ in batches]), torch.cat([own for _, own in batches])


@pytest.mark.parametrize("name", ["contrast", "pixelate", "defocus_blur"])
def test_a_set_made_while_read_is_the_corrupted_test_set(name):
    """Of corruptions without randomness, which cannot know how they were cut into blocks."""
    test = clean()
    images, labels = whole(GeneratedSet(test, "imagenet", seed=0), name, 3)
    expected = generate(test.images.permute(0, 2, 3, 1).contiguous().numpy(), name, 3, "imagenet")
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1).numpy(), expected)
    assert labels.tolist() == test.labels.tolist()


def test_threads_and_order_change_no_bit_and_seeds_do(monkeypatch):
    test = clean()
    first = whole(GeneratedSet(test, "imagenet", seed=0), "snow", 2)[0]
    monkeypatch.setattr(prefetch, "threads", lambda: 1)
    found = GeneratedSet(test, "imagenet", seed=0)
    whole(found, "fog", 1)
    assert torch.equal(whole(found, "snow", 2)[0], first)
    other = whole(GeneratedSet(test, "imagenet", seed=1), "snow", 2)[0]
    assert (other != first).any()


def test_no_two_blocks_share_their_noise():
    same = Split(torch.full((64, 3, 16, 16), 128, dtype=torch.uint8), torch.zeros(64).long())
    images = whole(GeneratedSet(same, "imagenet", seed=0), "gaussian_noise", 1)[0].double()
    one, other = images[:32].flatten(), images[32:].flatten()
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.02


def test_of_many_test_images_some_are_drawn_once():
    found = GeneratedSet(clean(), "imagenet", seed=0, most=20)
    rows = found.rows()
    assert len(set(rows.tolist())) == 20
    assert rows.tolist() == sorted(rows.tolist())
    assert set((rows % 3).tolist()) == {0, 1, 2}, "not every third one: classes may come in turn"
    assert whole(found, "contrast", 1)[1].tolist() == (rows % 3).tolist()
    assert found.about == "20 of the 70 test images with ImageNet-C's constants"


@pytest.mark.parametrize(
    ("shape", "generated"),
    [((10_000, 3, 32, 32), False), ((300, 3, 224, 224), False), ((50_000, 3, 224, 224), True)],
)
def test_sets_of_gigabytes_are_not_stored(shape, generated):
    """CIFAR-10-C takes 2.9 GB and is; ImageNet-C would take 715 GB."""
    assert too_large(shape) == generated


@pytest.mark.parametrize("side", [64, 96, 128, 224])
def test_large_images_are_corrupted_as_imagenet_c(side):
    images = clean(1, side).images.permute(0, 2, 3, 1).contiguous().numpy()
    for name in NAMES_19:
        corrupted = generate(images, name, 5)
        np.testing.assert_array_equal(corrupted, generate(images, name, 5, "imagenet"))
        assert corrupted.shape == images.shape
        assert (corrupted != images).any()


# --- the stages, and what an interruption leaves ------------------------------------------------


def dataset(test: Split, classes=WNIDS) -> Dataset:
    mean = torch.tensor([0.4, 0.5, 0.6])
    return Dataset(test, test, test, tuple(classes), mean, mean / 2, {}, "imagenet")


def model(folder: Path, name: str, classes: int, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    network = build(name, classes, 3)
    meta = {"network": name, "classes": classes, "channels": 3, "sparsity": 0.0}
    folder.mkdir(parents=True)
    save_checkpoint(folder / "model.safetensors", Checkpoint(network.state_dict(), {}, meta))
    return folder


def flags(root: Path, **more: object) -> argparse.Namespace:
    paths = {name: root / "artifacts" / name for name in ("data", "model", "corruptions")}
    paths["out"] = root / "artifacts" / "ood"
    return argparse.Namespace(device="cpu", **paths | more)


@pytest.fixture
def place(tmp_path) -> Path:
    """Return a project before its corrupted set is made: data of three images, and a network."""
    save_data(dataset(clean(3, 40)), tmp_path / "artifacts" / "data")
    model(tmp_path / "artifacts" / "model", "resnet8", 3)
    return tmp_path


def result(root: Path) -> str:
    return (root / "artifacts" / "ood" / "metrics.json").read_text()


def test_a_set_too_large_to_store_is_described_and_evaluated(place, monkeypatch):
    monkeypatch.setattr(generated_set, "LARGEST_STORED", 3 * 40 * 40 * 3 * 95 - 1)
    corrupt.main(flags(place, out=place / "artifacts" / "corruptions"))
    made = {path.name for path in (place / "artifacts" / "corruptions").iterdir()}
    assert made == {"meta.json"}
    stage.main(flags(place))
    found = json.loads(result(place))
    assert found["synthetic"] is True
    assert found["about"] == "the test images with ImageNet-C's constants"
    monkeypatch.setattr(generated_set, "LARGEST_STORED", 3 * 40 * 40 * 3 * 95)
    corrupt.main(flags(place, out=place / "artifacts" / "corruptions"))
    stage.main(flags(place))
    stored = json.loads(result(place))
    assert stored["about"] == found["about"]
    for name in ("contrast", "pixelate", "zoom_blur"):  # no randomness
        assert stored["by_corruption"][name] == found["by_corruption"][name]


class Stopped(Exception):  # noqa: N818
    pass


def counting(seen: list[tuple[int, int]], after: int | None = None):
    """Return a network that notes each cell of `tree` that it sees, and stops after some."""

    def predict(images: torch.Tensor) -> torch.Tensor:
        cell = (int(images[0, 0, 0, 0]), int(images[0, 1, 0, 0]))
        if after is not None and len(seen) == after:
            raise Stopped
        seen.append(cell)
        return torch.eye(3)[(images[:, 2, 0, 0].long() // 2 + (cell[1] > 2) * (cell[0] % 3)) % 3]

    return predict


def test_an_interrupted_evaluation_goes_on_where_it_was(small, tmp_path):
    found = folders(small)
    seen: list[tuple[int, int]] = []
    expected = robustness(counting(seen), found)
    assert len(set(seen)) == 95
    side, first, second = tmp_path / "side.json", [], []
    with pytest.raises(Stopped):
        robustness(counting(first, after=33), found, PartialResults(side))
    assert len(json.loads(side.read_text())) == 33
    resumed = robustness(counting(second), found, PartialResults(side))
    assert len(second) == 62
    assert not set(first) & set(second)
    assert json.dumps(resumed) == json.dumps(expected)


def test_arrays_are_resumed_as_well(tmp_path):
    """A set as of CIFAR-C: other images, the same law."""
    images = np.zeros((30, 8, 8, 3), np.uint8)
    images[..., 2] = np.tile(np.arange(6), 5)[:, None, None]
    images[..., 1] = np.repeat(SEVERITIES, 6)[:, None, None]
    labels = np.tile(np.repeat([0, 1, 2], 2), 5)
    arrays = {}
    for number, name in enumerate(NAMES_19):
        arrays[name] = images.copy()
        arrays[name][..., 0] = number
    found, first, second = NpySet(arrays, labels, synthetic=False), [], []
    expected = robustness(counting([]), found)
    with pytest.raises(Stopped):
        robustness(counting(first, after=50), found, PartialResults(tmp_path / "side.json"))
    assert robustness(counting(second), found, PartialResults(tmp_path / "side.json")) == expected
    assert (len(first), len(second)) == (50, 45)


def test_half_a_side_file_counts_as_none(tmp_path):
    (tmp_path / "side.json").write_text('{"fog/1": [3')
    cells = PartialResults(tmp_path / "side.json")
    assert ("fog", 1) not in cells
    cells.add(("fog", 1), 1, 4)
    assert PartialResults(tmp_path / "side.json").accuracy(("fog", 1)) == 0.25


def test_whatever_could_change_a_bit_starts_another_side_file(place, monkeypatch):
    read = (place / "artifacts" / "model" / "model.safetensors", place / "artifacts" / "data")
    out, cpu = place / "artifacts" / "ood", torch.device("cpu")
    names = [side_file(out, read, cpu)]
    assert side_file(out, read, cpu) == names[0]
    names.append(side_file(out, read, torch.device("cuda")))
    shutil.rmtree(place / "artifacts" / "model")
    model(place / "artifacts" / "model", "resnet8", 3, seed=1)
    names.append(side_file(out, read, cpu))
    (place / "artifacts" / "data" / "more").write_text("")
    names.append(side_file(out, read, cpu))
    monkeypatch.setattr("pipeline.evaluate.partial_results.version", lambda _: "0.1")
    names.append(side_file(out, read, cpu))
    monkeypatch.setattr("pipeline.evaluate.partial_results.cpu_name", lambda: "another")
    names.append(side_file(out, read, cpu))
    monkeypatch.setattr(code_files, "_allowed", {(place / "mine.py")})
    for text in ("one", "two"):
        (place / "mine.py").write_text(text)
        names.append(side_file(out, read, cpu))
    assert len(set(names)) == 8


def test_another_side_file_removes_those_of_the_same_stage_only(place):
    read, cpu = (place / "artifacts" / "model" / "model.safetensors",), torch.device("cpu")
    files = [side_file(place / "artifacts" / name, read, cpu) for name in ("ood", "ood-2")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("{}")
    assert side_file(place / "artifacts" / "ood", read, cpu) == files[0]
    assert files[0].exists()
    side_file(place / "artifacts" / "ood", read, torch.device("cuda"))
    assert [file.exists() for file in files] == [False, True]


def test_a_finished_stage_leaves_no_side_file_and_a_failed_one_does(place, small):
    list_corruptions.main(flags(place, folder=small, out=place / "artifacts" / "corruptions"))
    data = dataset(clean(3, 8))
    save_data(data, place / "artifacts" / "data")
    stage.main(flags(place))
    before = result(place)
    assert not list((place / "artifacts" / ".unfinished").iterdir())
    copy = place / "copy"
    shutil.copytree(small, copy)
    list_corruptions.main(flags(place, folder=copy, out=place / "artifacts" / "corruptions"))
    fog = next((copy / "fog" / "2" / WNIDS[0]).iterdir())
    kept = fog.read_bytes()
    fog.write_bytes(kept[:40] + b"\0" * (len(kept) - 40))
    shutil.rmtree(place / "artifacts" / "ood")
    with pytest.raises(UserError, match="cannot be read as an image"):
        stage.main(flags(place))
    (side,) = (place / "artifacts" / ".unfinished").iterdir()
    assert len(json.loads(side.read_text())) == 5 * NAMES_19.index("fog") + 1
    fog.write_bytes(kept)
    stage.main(flags(place))
    found, expected = json.loads(result(place)), json.loads(before)
    assert found["by_corruption"] == expected["by_corruption"]
    assert found["about"] == f"`{copy}`"
    assert not side.exists()


# --- how it is planned ---------------------------------------------------------------------------


def planned(root: Path, official: Path | None) -> Plan:
    text = "recipe: digits\nseed: 0\nm: 2\nmethods: [sms]\nmerge: [uniform]\n"
    if official is not None:
        text += f"evaluate: {{corruptions_path: {official}}}\n"
    (root / "params.yaml").write_text(text)
    return plan_of(experiment.load(root / "params.yaml"))


@pytest.mark.parametrize("grouped", [False, True])
def test_image_files_are_listed_by_a_stage_and_hashed_by_none(tmp_path, grouped):
    official = tree(tmp_path / "set", grouped=grouped, names=NAMES_15[:1], each=1)
    nodes = planned(tmp_path, official).nodes
    listing, ood = nodes["corruptions"], nodes["s0-dense-ood"]
    assert listing.script == "list_corruptions"
    assert listing.arguments["folder"] == str(official)
    assert listing.unwatched == (str(official),)
    assert ood.arguments["corruptions"] == "artifacts/corruptions"
    for node in (listing, ood):
        assert str(official) not in dependencies(node)
    assert "artifacts/corruptions" in dependencies(ood)


def test_arrays_are_a_dependency_as_they_are(tmp_path):
    (tmp_path / "set").mkdir()
    nodes = planned(tmp_path, tmp_path / "set").nodes
    assert "corruptions" not in nodes
    assert str(tmp_path / "set") in dependencies(nodes["s0-dense-ood"])


def test_without_an_official_set_one_is_made(tmp_path):
    assert planned(tmp_path, None).nodes["corruptions"].script == "corrupt"


def test_imagenet_c_is_found_in_the_data_folder(tmp_path, monkeypatch):
    recipes = tmp_path / "recipes"
    shutil.copytree(experiment.RECIPES, recipes)
    recipe = (recipes / "cifar10_resnet18.yaml").read_text()
    (recipes / "large.yaml").write_text(recipe.replace("CIFAR-10-C", "ImageNet-C"))
    monkeypatch.setattr(experiment, "RECIPES", recipes)
    (tmp_path / "params.yaml").write_text(
        "recipe: large\nseed: 0\nm: 2\nmethods: [imp]\nmerge: [uniform]\n"
    )
    assert experiment.load(tmp_path / "params.yaml").evaluate.corruptions_path is None
    tree(tmp_path / "data" / "ImageNet-C", names=NAMES_15[:1], each=1)
    assert experiment.load(tmp_path / "params.yaml").evaluate.corruptions_path == "data/ImageNet-C"


# --- real images ------------------------------------------------------------------------------


def sample(folder: Path, classes: int) -> list[str]:
    """Unpack the first classes of the ImageNet sample; one image of each, short side 96."""
    with tarfile.open(shared.pack("imagenet-sample.tar.xz")) as archive:
        members = [member for member in archive if member.name.endswith(".JPEG")]
        members.sort(key=lambda member: member.name)
        for member in members[:: len(members) // classes][:classes]:
            target = folder / Path(member.name).parent.name / Path(member.name).name
            target.parent.mkdir(parents=True)
            target.write_bytes(archive.extractfile(member).read())
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    """Return data of four ImageNet classes, ResNet-18, and their ImageNet-C, JPEG 85 as theirs."""
    root = tmp_path_factory.mktemp("real")
    classes = sample(root / "val", 4)
    crops = []
    for wnid in classes:
        (file,) = (root / "val" / wnid).iterdir()
        image = Image.open(file).convert("RGB")
        left, top = (image.width - 96) // 2, (image.height - 96) // 2
        crops.append(np.asarray(image.crop((left, top, left + 96, top + 96))))
    images = np.stack(crops)
    for archive, names in ARCHIVES.items():
        for name in names:
            for severity in SEVERITIES:
                for wnid, pixels in zip(classes, generate(images, name, severity), strict=True):
                    path = root / "ImageNet-C" / archive / name / str(severity) / wnid / "0.JPEG"
                    path.parent.mkdir(parents=True)
                    Image.fromarray(pixels).save(path, "JPEG", quality=85)
    test = Split(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.arange(4))
    save_data(dataset(test, classes), root / "artifacts" / "data")
    model(root / "artifacts" / "model", "torchvision.resnet18", 4)
    list_corruptions.main(
        flags(root, folder=root / "ImageNet-C", out=root / "artifacts" / "corruptions")
    )
    return root


@pytest.fixture(scope="module")
def measured(real) -> str:
    """Return the text of metrics.json after one run of the stage."""
    stage.main(flags(real))
    return result(real)


@pytest.mark.slow
def test_real_images_against_a_plain_loop(real, measured):
    """One image at a time with Pillow and PyTorch, on what a shallow walk of the folders finds."""
    from torchvision.models import resnet18
    from torchvision.transforms.v2 import functional

    found = json.loads(measured)
    torch.manual_seed(0)
    network = resnet18(num_classes=4).eval()
    classes = sorted(path.name for path in (real / "val").iterdir())
    data = load_data(real / "artifacts" / "data")
    corrupted = open_set(real / "artifacts" / "corruptions", data)
    for name, severity in [("fog", 1), ("glass_blur", 5), ("spatter", 3), ("contrast", 4)]:
        folder = next((real / "ImageNet-C").glob(f"*/{name}/{severity}"))
        scores, labels = [], []
        for file in sorted(folder.glob("*/*.JPEG")):
            pixels = functional.pil_to_tensor(Image.open(file)).float() / 255
            pixels = functional.normalize(pixels, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
            with torch.inference_mode():
                scores.append(network(pixels[None])[0])
            labels.append(classes.index(file.parent.name))
        ((images, own),) = corrupted.batches(name, severity)
        ours = logits(network, images, data.mean, data.std)
        torch.testing.assert_close(ours, torch.stack(scores), rtol=1e-4, atol=1e-4)
        assert own.tolist() == labels
        right = sum(int(s.argmax()) == label for s, label in zip(scores, labels, strict=True))
        assert found["by_corruption"][name][severity - 1] == right / 4
    assert found["images"] == 4
    assert found["synthetic"] is False
    assert tuple(corrupted.names) == NAMES_19


@pytest.mark.slow
def test_a_killed_stage_goes_on_with_the_cells_that_are_left(real, measured, tmp_path):
    shutil.rmtree(real / "artifacts" / "ood")
    command = [sys.executable, "-m", "stages.robustness", "--device", "cpu"]
    for name in ("data", "model", "corruptions"):
        command += [f"--{name}", str(real / "artifacts" / name)]
    command += ["--out", str(real / "artifacts" / "ood")]
    unfinished, events = real / "artifacts" / ".unfinished", tmp_path / "events"
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    done, limit = 0, time.monotonic() + 120
    while done < 5 and running.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
        sides = list(unfinished.glob("*.json"))
        done = len(json.loads(sides[0].read_text())) if sides else 0
    running.send_signal(signal.SIGKILL)
    running.wait()
    (side,) = unfinished.glob("*.json")
    kept = len(json.loads(side.read_text()))
    assert 5 <= kept < 95
    assert not (real / "artifacts" / "ood").exists()
    environment = os.environ | {"SMS_EVENTS": str(events)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert sum("corruption" in event for event in told) == 95 - kept
    assert result(real) == measured
    assert not list(unfinished.iterdir())


PARAMS = """\
recipe: image_folder
seed: 0
m: 2
phases: 1
target_sparsity: 0.5
methods: [sms]
merge: [uniform]
evaluate: {corruptions: final, corruptions_path: ImageNet-C}
data: {path: my_images, size: 8}
network: {name: resnet8}
pretrain: {epochs: 1, batch_size: 32}
retrain: {epochs: 1}
"""


@pytest.mark.slow
def test_image_files_through_the_whole_graph(tmp_path):
    """Listed once, evaluated per network, reported as official; a changed set is noticed."""
    project = Project.create(tmp_path / "project")
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 2)):
        for wnid in WNIDS:
            for k in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                put(project.root / "my_images" / part / wnid / f"{k}.png", pixels)
    tree(project.root / "ImageNet-C", grouped=True)
    with (project.root / ".gitignore").open("a") as file:
        file.write("/my_images\n/ImageNet-C\n")
    (project.root / "params.yaml").write_text(PARAMS)
    project.run("dvc", "repro")
    page = (project.root / "reports" / "results.md").read_text()
    assert "**Official**: `ImageNet-C`, 6 images" in page
    assert "Synthetic" not in page
    assert not ran(project.run("dvc", "repro"))

    extra = project.root / "ImageNet-C" / "weather" / "fog" / "3" / WNIDS[0]
    file = next(extra.iterdir())
    file.write_bytes(file.read_bytes() + b" ")
    again = project.run("dvc", "repro", "-f", "-s", "stages/dvc.yaml:corruptions")
    assert "list_corruptions" in again
    assert {"s0-dense-ood"} < ran(project.run("dvc", "repro"))
    (project.root / "ImageNet-C").rename(project.root / "gone")
    project.edit("params.yaml", "epochs: 1, batch_size", "epochs: 2, batch_size")
    output = project.run("dvc", "repro", ok=False)
    assert "ImageNet-C does not exist" in output
    assert "zenodo.org, licence CC BY 4.0" in output
