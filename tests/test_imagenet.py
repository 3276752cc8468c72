"""ImageNet: the official folders, images packed and decoded again, random crops, a whole run."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from scipy.stats import ks_2samp
from torch import nn
from torchvision import models, transforms
from torchvision.transforms import functional as tv

from pipeline.config.experiment import RECIPES
from pipeline.config.experiment import load as load_params
from pipeline.data import imagenet
from pipeline.data.base import Dataset, Split, load, save
from pipeline.data.build import prepare
from pipeline.data.formats import prefetch
from pipeline.data.formats.lazy_images import LazyImages
from pipeline.errors import UserError
from pipeline.evaluate.classification import summary
from pipeline.evaluate.cost import cost
from pipeline.models._weights import load_weights
from pipeline.models.build import build
from pipeline.plan.build import build as plan
from pipeline.prune.allocations.global_ import masks
from pipeline.prune.prunable import prunable
from pipeline.report.paper import lookup
from pipeline.schedules.pretrain_lr import pretrain_rates
from pipeline.stagekit.merge_inputs import MergeInputs
from pipeline.stagekit.model_folder import write
from pipeline.storage.checkpoint import Checkpoint, read_json
from pipeline.storage.checkpoint import load as load_checkpoint
from pipeline.train import random_resized_crop
from pipeline.train.batches import Batches
from pipeline.train.batchnorm import reestimate
from pipeline.train.distributed import shard
from pipeline.train.loop import Settings, train
from pipeline.train.normalise import normaliser
from pipeline.train.predict import logits
from pipeline.train.settings import Augmentation
from tests import shared
from tests.project import Project, ran
from tests.test_params import edited

WNIDS = ("n01440764", "n02123045", "n04147183")
CPU = torch.device("cpu")
CUT = Augmentation(resized_crop=0.08, flip=True)


def photograph(path: Path, seed: int, size: tuple[int, int], mode: str = "RGB") -> None:
    """Write a smooth random image, which JPEG keeps nearly as it is."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse.resize(size, Image.Resampling.BICUBIC).convert(mode).save(path, "JPEG", quality=95)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the official layout: three classes of ten images for training and four for testing."""
    root = tmp_path_factory.mktemp("official")
    sizes = [(50, 40), (40, 60), (20, 24), (37, 37)]  # the third is not shrunk to 32
    for label, wnid in enumerate(WNIDS):
        for number in range(10):
            name = f"{wnid}_{number:04d}.JPEG"
            photograph(root / "train" / wnid / name, 100 * label + number, sizes[number % 4])
        for number in range(4):
            seed = 1000 * (label + 1) + number
            photograph(root / "val" / wnid / f"ILSVRC2012_val_{seed:08d}.JPEG", seed, sizes[number])
    photograph(root / "train" / WNIDS[0] / f"{WNIDS[0]}_9999.JPEG", 7, (50, 40), "L")
    photograph(root / "train" / WNIDS[1] / f"{WNIDS[1]}_9999.JPEG", 8, (50, 40), "CMYK")
    (root / "train" / WNIDS[2] / ".DS_Store").write_text("no image")
    (root / "LOC_synset_mapping.txt").write_text(
        "n01440764 tench, Tinca tinca\nn02123045 tabby, tabby cat\nn04147183 schooner\n"
    )
    return root


@pytest.fixture(scope="module")
def folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare the images under ``root`` at 28 pixels: short sides of 32."""
    folder = tmp_path_factory.mktemp("prepared")
    save(prepare("imagenet", imagenet.read(root, 28), seed=0), folder)
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return load(folder)


def in_memory(data: Dataset) -> Dataset:
    """Return ``data`` with all squares decoded, which is what other data sets look like."""
    parts = {
        part: Split(getattr(data, part).images[:].contiguous(), getattr(data, part).labels)
        for part in ("train", "val", "test")
    }
    return replace(data, **parts)


# The reader


def test_classes_are_wnids_in_order_and_names_are_for_people(data):
    assert data.classes == WNIDS
    assert data.groups["classes"].names == (
        "n01440764 tench",
        "n02123045 tabby",
        "n04147183 schooner",
    )
    assert data.groups["classes"].ids.tolist() == data.test.labels.tolist()
    by_class = summary(torch.rand(len(data.test), 3), data.test, data)["groups"]["class"]
    assert "n01440764 tench" in by_class["groups"], "the report's tables have readable names"
    assert data.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_val_is_the_test_split_and_validation_comes_off_train(data):
    assert (len(data.train), len(data.val), len(data.test)) == (29, 3, 12)
    assert data.test.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.train.images.shape == (29, 3, 28, 28)


def test_test_squares_are_torchvisions(root, data):
    evaluation = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(28)])
    files = sorted((root / "val").glob("*/*.JPEG"))
    for file, square in zip(files, data.test.images[:], strict=True):
        with Image.open(file) as image:
            expected = tv.pil_to_tensor(evaluation(image.convert("RGB")))
        assert torch.equal(square, expected), file.name


def test_test_images_are_packed_byte_by_byte(root, folder):
    files = sorted((root / "val").glob("*/*.JPEG"))
    packed = load_file(folder / "test-images.safetensors")
    whole = b"".join(file.read_bytes() for file in files)
    assert packed["bytes"].numpy().tobytes()[: len(whole)] == whole
    assert packed["offsets"].tolist() == np.cumsum([0, *(f.stat().st_size for f in files)]).tolist()
    for file, size in zip(files, packed["sizes"].tolist(), strict=True):
        with Image.open(file) as image:
            assert [image.height, image.width] == size


def test_training_images_are_shrunk_once_and_never_enlarged(root, data):
    shapes = {tuple(size) for size in data.train.images.files.sizes.tolist()}
    assert shapes == {(32, 40), (48, 32), (24, 20), (32, 32)}
    raw = imagenet.read(root, 28).train
    assert raw.images[torch.tensor([0])].shape == (1, 3, 28, 28), "loose files look the same"


def test_packing_changes_pixels_little_and_labels_not_at_all(root, data):
    raw = imagenet.read(root, 28)
    train, val = (prepare("imagenet", raw, seed=0).train, prepare("imagenet", raw, seed=0).val)
    for loose, packed in ((train, data.train), (val, data.val)):
        assert torch.equal(loose.labels, packed.labels)
        own, other = packed.images[:].float(), packed.images[:].roll(1, 0).float()
        near, far = ((loose.images[:] - each).abs().mean((1, 2, 3)) for each in (own, other))
        assert near.max() < 8
        assert far.min() > 20, "another image's"


def test_equal_files_give_equal_bytes(root, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(prefetch, "threads", lambda: 5)
    save(prepare("imagenet", imagenet.read(root, 28), seed=0), tmp_path / "again")
    for file in folder.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_folder_named_imagenet_is_found_inside(root, tmp_path):
    (tmp_path / "imagenet").symlink_to(root)
    assert imagenet.read(tmp_path, 28).classes == WNIDS


def test_missing_folders_are_named_with_where_to_get_them(tmp_path):
    with pytest.raises(UserError, match=r"train has no folders.*image-net\.org.*non-commercial"):
        imagenet.read(tmp_path, None)


def test_official_tars_alone_say_how_to_unpack_them(tmp_path):
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"devkit.*torchvision\.datasets import ImageNet"):
        imagenet.read(tmp_path, None)


def test_what_is_wrong_is_named(tmp_path):
    for part, wnids in (("train", WNIDS), ("val", WNIDS[:2])):
        for wnid in wnids:
            photograph(tmp_path / part / wnid / "a.JPEG", 0, (20, 20))
    with pytest.raises(UserError, match="differ in the classes n04147183"):
        imagenet.read(tmp_path, 28)
    (tmp_path / "val" / WNIDS[2]).mkdir()
    with pytest.raises(UserError, match=r"n04147183 has no \.JPEG images"):
        imagenet.read(tmp_path, 28)
    damaged = tmp_path / "val" / WNIDS[2] / "b.JPEG"
    damaged.write_bytes((tmp_path / "val" / WNIDS[0] / "a.JPEG").read_bytes()[:-200])
    raw = imagenet.read(tmp_path, 28)
    with pytest.raises(UserError, match=r"b\.JPEG cannot be read as an image"):
        save(Dataset(raw.test, raw.test, raw.test, WNIDS, *raw.scale, {}), tmp_path / "out")


def test_a_truncated_pack_is_named(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "val-images.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"val-images\.safetensors is truncated"):
        load(tmp_path)


# Random resized crops


def theirs(size: tuple[int, int], smallest: float, count: int) -> torch.Tensor:
    """Return the crops that torchvision draws for one image of ``size``, height and width."""
    transform, image = transforms.RandomResizedCrop(8, (smallest, 1)), torch.zeros(3, *size)
    draws = [transform.get_params(image, transform.scale, transform.ratio) for _ in range(count)]
    return torch.tensor(draws).double()


@pytest.mark.parametrize(
    ("size", "smallest"), [((256, 341), 0.08), ((40, 400), 0.08), ((33, 31), 0.9)]
)
def test_crops_follow_torchvisions_distribution(size, smallest):
    torch.manual_seed(1)
    count = 3000
    generator = torch.Generator().manual_seed(2)
    ours = random_resized_crop.draw(
        torch.tensor([size] * count), smallest, generator, flip=True
    ).double()
    expected = theirs(size, smallest, count)
    for name, of in (
        ("top", lambda c: c[:, 0]),
        ("left", lambda c: c[:, 1]),
        ("area", lambda c: c[:, 2] * c[:, 3]),
        ("ratio", lambda c: c[:, 3] / c[:, 2]),
    ):
        assert ks_2samp(of(ours), of(expected)).pvalue > 1e-3, name
    assert abs(ours[:, 4].mean() - 0.5) < 0.05


@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    smallest=st.floats(0.01, 1),
    seed=st.integers(0, 99),
)
def test_crops_lie_inside_and_are_as_large_and_wide_as_asked(height, width, smallest, seed):
    sizes = torch.tensor([[height, width]] * 20)
    found = random_resized_crop.draw(
        sizes, smallest, torch.Generator().manual_seed(seed), flip=False
    )
    top, left, h, w, mirrored = found.unbind(1)
    assert ((top >= 0) & (left >= 0) & (h > 0) & (w > 0)).all()
    assert ((top + h <= height) & (left + w <= width)).all()
    assert not mirrored.any()
    # Sides are rounded to whole pixels, half a pixel either way.
    assert ((w + 0.5) / (h - 0.5) >= 3 / 4).all()
    assert ((w - 0.5) / (h + 0.5) <= 4 / 3).all()


def test_each_image_has_its_own_draws():
    generator = torch.Generator().manual_seed(0)
    one = random_resized_crop.draw(torch.tensor([[300, 300]] * 6), 0.08, generator, flip=True)
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([[300, 300]] * 2 + [[10, 2000]] + [[300, 300]] * 3)
    other = random_resized_crop.draw(sizes, 0.08, generator, flip=True)
    assert torch.equal(one[[0, 1, 3, 4, 5]], other[[0, 1, 3, 4, 5]])
    assert len(one.unique(dim=0)) == 6


def test_a_crop_has_the_pixels_that_torchvision_gives(root):
    images = imagenet.read(root, 28).test.images
    boxes = torch.tensor([[3, 5, 20, 25, 0], [0, 0, 60, 40, 1], [10, 4, 9, 11, 1], [7, 0, 1, 2, 0]])
    found = next(images.decoded([(torch.arange(4), boxes)]))
    for path, box, pixels in zip(images.files.paths[:4], boxes.tolist(), found, strict=True):
        with Image.open(path) as image:
            expected = tv.resized_crop(image, *box[:4], [28, 28])
        expected = tv.hflip(expected) if box[4] else expected
        assert torch.equal(pixels, tv.pil_to_tensor(expected)), path


# Batches


def batches(data: Dataset, size: int, augmentation: Augmentation = CUT) -> list:
    made = Batches(data, size, augmentation, seed=3, device=CPU)
    return [*made.epoch(), *made.epoch()]


def test_batches_do_not_depend_on_the_number_of_threads(data, monkeypatch):
    epochs = []
    for threads in (1, 2, 7):
        monkeypatch.setattr(prefetch, "threads", lambda threads=threads: threads)
        epochs.append(batches(data, 9))
    for other in epochs[1:]:
        for (images, labels), (images2, labels2) in zip(epochs[0], other, strict=True):
            assert torch.equal(images, images2)
            assert torch.equal(labels, labels2)
    assert not torch.equal(epochs[0][0][0], epochs[0][3][0]), "epochs differ"


def test_processes_decode_their_shares_of_the_same_batches(data, monkeypatch):
    whole, parts = batches(data, 5), []
    for number in range(2):
        monkeypatch.setattr(
            "pipeline.train.batches.local_shard", lambda n, r=number: shard(n, r, 2)
        )
        parts.append(batches(data, 5))
    for step, (images, labels) in enumerate(whole):
        assert torch.equal(torch.cat([part[step][0] for part in parts]), images)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), labels)


def test_without_a_crop_batches_are_those_of_the_decoded_images(data):
    augmentation = Augmentation(crop_padding=3, flip=True, rotation=10.0)
    found, expected = (batches(one, 8, augmentation) for one in (data, in_memory(data)))
    for (images, labels), (images2, labels2) in zip(found, expected, strict=True):
        assert torch.equal(images, images2)
        assert torch.equal(labels, labels2)


def test_each_image_of_a_batch_is_a_part_of_the_one_its_label_belongs_to(tmp_path):
    """Images of one colour each: whatever is cut out of them, and mirrored, has that colour."""
    for label in range(2):
        for number in range(20):
            colour = (5 * number, 100 * label + 50, 200)
            for part in ("train", "val"):
                path = tmp_path / part / WNIDS[label] / f"{number}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (60, 50), colour).save(path, quality=100, subsampling=0)
    save(prepare("imagenet", imagenet.read(tmp_path, 28), seed=0), tmp_path / "out")
    data = load(tmp_path / "out")
    images, labels = batches(data, 36)[0]
    pixels = (images * data.std.view(3, 1, 1) + data.mean.view(3, 1, 1)) * 255
    assert pixels.std((2, 3)).max() < 0.1
    reds, greens, _ = pixels.mean((2, 3)).unbind(1)
    assert torch.allclose(greens, 100.0 * labels + 50, atol=2.5)
    seen = {*zip(labels.tolist(), (reds / 5).round().tolist(), strict=True)}
    assert len(seen) == 36, "each image once"


def test_resized_crops_of_images_stored_as_squares_are_refused(data):
    with pytest.raises(UserError, match=r"augmentation\.resized_crop is 0\.08"):
        Batches(in_memory(data), 8, CUT, seed=0, device=CPU)


# What works on compressed images as on those in memory


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return build("resnet8", 3)


def test_batchnorm_and_predictions_are_those_of_the_decoded_images(data):
    found = []
    for one in (data, in_memory(data)):
        model = small_network()
        reestimate(model, one.train.images, one.mean, one.std, batch_size=10)
        found.append(logits(model, one.val.images, one.mean, one.std, batch_size=2))
    assert torch.equal(*found)


@pytest.mark.parametrize("batch_size", [10, 99])
def test_batchnorm_is_estimated_on_crops_as_in_training(data, batch_size):
    """Mean and variance of the crops that fixed draws cut out of the compressed images."""
    model, images = nn.Sequential(nn.BatchNorm2d(3)), data.train.images
    reestimate(model, images, data.mean, data.std, batch_size, CUT)
    generator, order = seeded(), torch.randperm(len(images), generator=seeded())
    crops = random_resized_crop.draw(images.files.sizes[order], 0.08, generator, flip=True)
    (pixels,) = images.decoded([(order, crops)])
    parts = normaliser(data.mean, data.std, CPU)(pixels).double()
    parts = parts.tensor_split(-(-len(images) // batch_size))
    shares = torch.tensor([len(part) / len(images) for part in parts]).double()
    for found, expected in (
        (model[0].running_mean, shares @ torch.stack([part.mean((0, 2, 3)) for part in parts])),
        (model[0].running_var, shares @ torch.stack([part.var((0, 2, 3)) for part in parts])),
    ):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_what_a_thread_raises_reaches_the_training(data):
    class Broken:
        sizes = data.train.images.files.sizes

        def __len__(self) -> int:
            return len(self.sizes)

        def read(self, row: int) -> bytes:
            return b"no image" * (row + 1)

        def name(self, row: int) -> str:
            return f"image {row} of a pack"

    broken = replace(data, train=Split(LazyImages(Broken(), 28), data.train.labels))
    with pytest.raises(UserError, match=r"image \d+ of a pack .*cannot identify image"):
        batches(broken, 9)


def test_training_on_compressed_images_repeats_itself(data, tmp_path):
    states = []
    for _ in range(2):
        model = small_network()
        settings = Settings(8, 1e-4, label_smoothing=0.1, clip_norm=1.0, augmentation=CUT)
        train(model, data, settings, [0.01] * 5, seed=1)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_merge_draws_its_batches_from_compressed_images(data, tmp_path):
    meta = {"network": "resnet8", "classes": 3, "channels": 3, "sparsity": 0.0}
    for seed, name in enumerate(("c0", "c1")):
        torch.manual_seed(seed)
        state = build("resnet8", 3).state_dict()
        write(tmp_path / name, Checkpoint(state, {}, meta), data, CPU)
    folders = [tmp_path / "c0", tmp_path / "c1"]
    found = [
        MergeInputs(folders, one, CPU).loss.gradient(torch.tensor([0.3, 0.7]).double(), 0)
        for one in (data, in_memory(data))
    ]
    assert torch.equal(*found)


# The recipes


def test_table_3_of_the_paper_is_what_the_recipes_say(tmp_path):
    resnet = load_params(edited(tmp_path, recipe="imagenet_resnet50"))
    own = resnet.pretrain
    assert (own.epochs, own.batch_size, own.weight_decay, own.schedule) == (90, 256, 1e-4, "linear")
    assert (own.learning_rate, resnet.phases, resnet.target_sparsity) == (0.1, 3, 0.9)
    maxvit = load_params(edited(tmp_path, recipe="imagenet_maxvit"))
    own = maxvit.pretrain
    rates = pretrain_rates(
        own.schedule, own.epochs, own.learning_rate, warmup=own.warmup, milestones=own.milestones
    )
    expected = [0.2 * t / 20 for t in range(1, 21)]
    expected += [0.2] * 40 + [0.02] * 60 + [0.002] * 40 + [0.0002] * 40
    assert rates == pytest.approx(expected, rel=1e-12)
    assert (own.batch_size, own.weight_decay, maxvit.phases) == (256, 1e-5, 1)
    assert (own.label_smoothing, own.clip_norm) == (0.1, 1.0)
    assert (maxvit.retrain.epochs, maxvit.retrain.schedule) == (10, "ALLR")


@pytest.mark.parametrize(
    ("recipe", "sparsity", "method", "phase", "expected"),
    [
        ("imagenet_resnet50", 0.9, "sms_uniform", 3, (74.53, 1)),
        ("imagenet_resnet50", 0.9, "sms_greedy", 2, (76.12, 1)),
        ("imagenet_resnet50", 0.9, "dense", 0, (76.12, 3)),
        ("imagenet_maxvit", 0.75, "sms_uniform", 1, (78.31, 7)),
        ("imagenet_maxvit", 0.8, "sms_greedy", 1, (78.06, 7)),
        ("imagenet_maxvit", 0.85, "sms_uniform", 1, (77.59, 7)),
        ("imagenet_maxvit", 0.75, "dense", 0, (78.0, 3)),
    ],
)
def test_the_papers_rows_are_found(tmp_path, recipe, sparsity, method, phase, expected):
    own = load_params(edited(tmp_path, recipe=recipe, target_sparsity=sparsity))
    found = lookup.lookup(own, method, phase)
    assert found is not None
    assert (found.mean, found.table) == expected


def test_weights_taken_as_they_are_need_a_file_and_are_no_row_of_the_paper(tmp_path):
    with pytest.raises(UserError, match=r"pretrain\.epochs is 0, but network\.weights is null"):
        load_params(edited(tmp_path, recipe="imagenet_resnet50", pretrain__epochs=0))
    official = {"pretrain__epochs": 0, "network__weights": "resnet50.pth"}
    found = load_params(edited(tmp_path, recipe="imagenet_resnet50", **official))
    assert lookup.lookup(found, "imp", 3) is None


def test_pruning_while_training_needs_epochs(tmp_path):
    official = {"pretrain__epochs": 0, "network__weights": "resnet50.pth", "methods": ["gmp"]}
    settings = load_params(edited(tmp_path, recipe="imagenet_resnet50", **official))
    with pytest.raises(UserError, match=r"pretrain\.epochs is 0 and sparsify\.epochs null"):
        plan(settings)


# The networks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "weights", "tensors"),
    [("resnet50", 25_557_032, 25_502_912, 54), ("maxvit_t", 30_919_624, 30_757_056, 151)],
)
def test_official_weights_load_and_are_pruned_by_half(tmp_path, name, parameters, weights, tensors):
    """A state dict as torchvision publishes it; position biases and norms are never pruned."""
    torch.manual_seed(1)
    torch.save(models.get_model(name, weights=None).state_dict(), tmp_path / "official.pth")
    model = build(f"torchvision.{name}", 1000)
    assert load_weights(model, tmp_path / "official.pth") == []
    saved = torch.load(tmp_path / "official.pth", weights_only=True)
    assert all(torch.equal(saved[key], value) for key, value in model.state_dict().items())
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    names = prunable(model)
    own = {key: model.get_parameter(key).detach() for key in names}
    assert (sum(weight.numel() for weight in own.values()), len(names)) == (weights, tensors)
    # Of what is trained, biases and norms are vectors, and the only other tables are of positions.
    assert set(names) == {
        key
        for key, parameter in model.named_parameters()
        if parameter.ndim > 1 and "relative_position_bias_table" not in key
    }
    alive = {key: torch.ones_like(weight, dtype=torch.bool) for key, weight in own.items()}
    kept = masks({key: weight.abs() for key, weight in own.items()}, 0.5, alive)
    assert sum(int(mask.sum()) for mask in kept.values()) == weights - weights // 2


@pytest.mark.slow
def test_maxvit_retrains_under_its_masks(root, tmp_path):
    save(prepare("imagenet", imagenet.read(root, 224), seed=0), tmp_path)
    data = load(tmp_path)
    torch.manual_seed(0)
    model = build("torchvision.maxvit_t", len(data.classes))
    generator = torch.Generator().manual_seed(0)
    kept = {
        name: torch.rand(model.get_parameter(name).shape, generator=generator) < 0.25
        for name in prunable(model)
    }
    table = next(name for name, _ in model.named_parameters() if "relative_position" in name)
    before = model.get_parameter(table).detach().clone()
    settings = Settings(2, 1e-5, label_smoothing=0.1, clip_norm=1.0, augmentation=CUT)
    small = replace(data, val=data.val.take(torch.arange(2)))
    train(model, small, settings, [0.1], seed=0, masks=kept)
    for name, mask in kept.items():
        assert not model.get_parameter(name)[~mask].any(), name
    assert not torch.equal(model.get_parameter(table), before), "position biases are trained"
    measured = cost(model, kept, data.test.images[:1])
    assert 3.5 < measured["speedup"] < 4.5
    # 5.6 billion multiply-accumulates in Tu et al.'s Table 2, attention's products among them.
    assert 5.0e9 < measured["macs"] < 5.6e9


# Whole runs


@pytest.mark.slow
def test_the_shared_sample_is_read_and_packed(tmp_path):
    with tarfile.open(shared.pack("imagenet-sample.tar.xz")) as archive:
        shared.unpack(archive, tmp_path)
    sample = tmp_path / "imagenet-sample"
    (sample / "train").symlink_to("val")
    raw = imagenet.read(sample, None)
    assert len(raw.classes) == 1000
    assert raw.classes[0] == "n01440764"
    assert raw.groups["classes"].names[1] == "n01443537 goldfish"
    assert raw.test.labels.tolist() == list(range(1000))
    save(prepare("imagenet", raw, seed=0), tmp_path / "out")
    data = load(tmp_path / "out")
    assert (len(data.train), len(data.val), len(data.test)) == (900, 100, 1000)
    images, labels = next(Batches(data, 32, CUT, seed=0, device=CPU).epoch())
    assert images.shape == (32, 3, 224, 224)
    assert labels.unique().numel() == 32
    assert -3 < images.mean() < 3


@pytest.mark.slow
def test_a_small_class_subset_is_learned_from_official_folders(tmp_path):
    """Four of CIFAR-10's classes as ImageNet has them, from weights taken as they are to a soup."""
    pack = shared.pack("cifar10.tar.xz")
    project = Project.create(tmp_path / "project")
    wnids = dict(zip(("airplane", "frog", "horse", "ship"), (*WNIDS, "n09999999"), strict=True))
    with tarfile.open(pack) as archive:
        for member in archive:
            path = Path(member.name)
            if not member.isfile() or path.parent.name not in wnids or int(path.stem) % 10:
                continue
            part = "train" if path.parts[1] == "train" else "val"
            folder = project.root / "data" / "imagenet" / part / wnids[path.parent.name]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{path.stem}.JPEG").write_bytes(archive.extractfile(member).read())
    recipe = yaml.safe_load((RECIPES / "imagenet_resnet50.yaml").read_text())
    recipe["network"]["name"], recipe["data"]["size"] = "resnet8", 28
    recipe["pretrain"] |= {"epochs": 4, "batch_size": 64}
    recipe["retrain"] |= {"epochs": 1}
    recipe["augmentation"]["resized_crop"] = 0.35
    recipe |= {"phases": 1, "target_sparsity": 0.5}
    (project.root / "recipes" / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    project.edit("params.yaml", "m: 3", "m: 2")
    project.run("dvc", "repro")
    metrics = json.loads((project.root / "reports" / "metrics.json").read_text())
    assert metrics["sms_uniform"]["test_score"] > 0.5, "of four classes by chance: 0.25"
    assert "## Missing" not in (project.root / "reports" / "results.md").read_text()

    dense = project.root / "artifacts" / "s0-dense"
    trained = read_json(dense / "metrics.json")
    torch.save(load_checkpoint(dense / "model.safetensors").state, project.root / "dense.pth")
    project.edit("params.yaml", "weights: null", "weights: dense.pth")
    project.edit("params.yaml", "epochs: null, batch_size", "epochs: 0, batch_size")
    assert "s0-dense" in ran(project.run("dvc", "repro"))
    assert read_json(dense / "metrics.json")["test_accuracy"] == trained["test_accuracy"]
    assert read_json(dense / "history.json") == []
    again = json.loads((project.root / "reports" / "metrics.json").read_text())
    assert again["sms_uniform"]["test_score"] > 0.5
