"""Data sets: official formats read exactly and safely, fixed splits, exact statistics."""

import contextlib
import csv
import functools
import hashlib
import http.server
import io
import os
import pickle
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets
from torchvision.datasets import utils
from torchvision.transforms import v2

from pipeline.data import cifar10, cifar100, image_folder
from pipeline.data.base import Groups, RawData, Split, load, save
from pipeline.data.build import prepare, read, split_rows, statistics
from pipeline.data.formats.cifar import locate, unpickle
from pipeline.data.formats.images import CHUNK, decode
from pipeline.errors import UserError
from pipeline.registry import names
from tests import shared


def random_split(count: int, classes: int = 3, channels: int = 3, size: int = 4, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, channels, size, size), generator=generator)
    labels = torch.randint(0, classes, (count,), generator=generator)
    return Split(images.to(torch.uint8), labels)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.bool)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
    ],
)
def test_split_refuses_what_is_no_split(images, labels):
    with pytest.raises(ValueError, match="must be"):
        Split(images, labels)


@given(st.integers(6, 400), st.integers(0, 2**31 - 1), st.sampled_from([0.1, 0.25, 0.5]))
def test_validation_partitions_the_examples_in_their_order(count, seed, fraction):
    train, val = split_rows(count, fraction, seed=seed)
    assert len(val) == round(fraction * count)
    assert sorted(train.tolist() + val.tolist()) == list(range(count))
    for part in (train, val):
        assert part.tolist() == sorted(part.tolist())


def test_validation_is_fixed_for_ever():
    """A split that moved with the version of torch would leak validation into training."""
    _, val = split_rows(50, seed=0)
    assert val.tolist() == [6, 7, 17, 39, 44]


def test_validation_differs_between_seeds():
    rows = [split_rows(100, seed=seed)[1] for seed in range(3)]
    assert len({tuple(held_out.tolist()) for held_out in rows}) == 3


@pytest.mark.parametrize(("count", "fraction"), [(0, 0.1), (4, 0.1), (3, 0.9)])
def test_validation_refuses_an_empty_part(count, fraction):
    with pytest.raises(UserError, match="empty validation or training split"):
        split_rows(count, fraction, seed=0)


@given(st.integers(1, 40), st.integers(1, 4), st.integers(2, 9), st.integers(0, 2**31 - 1))
def test_statistics_equal_those_of_the_scaled_pixels(count, channels, size, seed):
    images = random_split(count, channels=channels, size=size, seed=seed).images
    mean, std = statistics(images)
    pixels = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-6)


def test_statistics_do_not_depend_on_the_order_of_the_images():
    images = random_split(500).images
    shuffled = images[torch.randperm(500, generator=torch.Generator().manual_seed(1))]
    for ours, theirs in zip(statistics(images), statistics(shuffled), strict=True):
        assert torch.equal(ours, theirs)


def test_statistics_are_exact_where_float_sums_are_not():
    """One dark pixel in two million: a float32 sum of squares loses it."""
    images = torch.full((2000, 1, 32, 32), 255, dtype=torch.uint8)
    images[0, 0, 0, 0] = 254
    mean, std = statistics(images)
    n = images.numel()
    assert mean.item() == np.float32(1 - 1 / (255 * n))
    assert std.item() == np.float32(np.sqrt(n - 1) / (255 * n))


def test_statistics_refuse_a_constant_channel():
    images = random_split(10).images
    images[:, 1] = 7
    with pytest.raises(UserError, match="channel 1"):
        statistics(images)


def test_prepare_takes_its_statistics_from_the_training_split_only():
    raw = RawData(random_split(100), random_split(10), ("a", "b", "c"))
    data = prepare("toy", raw, seed=3)
    assert (len(data.train), len(data.val)) == (90, 10)
    for ours, theirs in zip((data.mean, data.std), statistics(data.train.images), strict=True):
        assert torch.equal(ours, theirs)


def test_prepare_keeps_a_validation_set_of_your_own():
    own = random_split(7, seed=5)
    data = prepare("toy", RawData(random_split(9), random_split(5), ("a",), val=own), seed=0)
    assert data.val is own
    assert len(data.train) == 9


def test_prepare_groups_the_test_images_by_class_and_by_what_the_data_names():
    colours = Groups(("red", "blue"), torch.tensor([0, 1, 1]))
    test = random_split(3)
    raw = RawData(random_split(20), test, ("a", "b", "c"), {"colour": colours})
    groups = prepare("toy", raw, seed=0).groups
    assert groups["colour"] is colours
    assert groups["classes"].names == ("a", "b", "c")
    assert torch.equal(groups["classes"].ids, test.labels)


def test_groups_of_training_images_are_those_left_after_the_split():
    raw = RawData(random_split(40), random_split(9), ("a", "b", "c"))
    groups = {"part": Groups(("x", "y"), torch.zeros(9, dtype=torch.int64), torch.arange(40) % 2)}
    data = prepare("toy", replace(raw, groups=groups), seed=3)
    kept, _ = split_rows(40, seed=3)
    assert data.groups["part"].train.tolist() == (kept % 2).tolist()
    assert torch.equal(data.train.labels, raw.train.labels[kept])


@settings(max_examples=8)
@given(st.integers(10, 30), st.integers(1, 3), st.integers(1, 6), st.text(max_size=8))
def test_files_come_back_as_they_were_saved(tmp_path_factory, count, channels, size, name):
    folder = tmp_path_factory.mktemp("data")
    train = random_split(count + 10, channels=channels, size=size + 1)
    test = random_split(count, channels=channels, size=size + 1)
    groups = {"colour": Groups((name, "blue"), test.labels % 2)}
    saved = prepare("toy", RawData(train, test, ("a", name, "c"), groups), seed=1)
    save(saved, folder)
    loaded = load(folder)
    assert (loaded.name, loaded.classes) == (saved.name, saved.classes)
    for part in ("train", "val", "test"):
        ours, theirs = getattr(loaded, part), getattr(saved, part)
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
    assert torch.equal(loaded.mean, saved.mean)
    assert torch.equal(loaded.std, saved.std)
    assert loaded.groups.keys() == saved.groups.keys()
    for key, group in saved.groups.items():
        assert loaded.groups[key].names == group.names
        assert torch.equal(loaded.groups[key].ids, group.ids)


def test_files_are_the_same_bytes_each_time(tmp_path):
    raw = RawData(random_split(30), random_split(10), ("a", "b", "c"))
    for folder in ("one", "two"):
        save(prepare("toy", raw, seed=1), tmp_path / folder)
    first, second = (
        {file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()}
        for folder in ("one", "two")
    )
    assert first == second
    assert len(first) == 5


def test_files_of_something_else_are_refused(tmp_path):
    with pytest.raises(UserError, match="missing"):
        load(tmp_path)
    save(prepare("toy", RawData(random_split(30), random_split(10), ("a",)), seed=1), tmp_path)
    (tmp_path / "meta.json").write_text('{"name": "toy"}')
    with pytest.raises(UserError, match="is not a data set"):
        load(tmp_path)


def test_read_knows_the_files_of_the_folder():
    assert set(names("data")) >= {"cifar10", "cifar100", "digits", "image_folder"}


@pytest.mark.parametrize("name", ["mnist", "base", "build", "formats", "../models/wrn20", ""])
def test_read_refuses_other_names(name):
    with pytest.raises(UserError, match=r"data\.name is .*: use one of .*digits"):
        read(name)


def test_digits_are_the_levels_of_scikit_learn_scaled_to_a_byte():
    digits = load_digits()
    expected = sorted(
        (int(label), *(int(255 * level / 16 + 0.5) for level in row))
        for row, label in zip(digits.data, digits.target, strict=True)
    )
    raw = read("digits")
    rows = [
        (int(label), *image.flatten().tolist())
        for split in (raw.train, raw.test)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert sorted(rows) == expected


def test_digits_hold_out_a_fixed_quarter_of_each_class():
    raw, again = read("digits"), read("digits", None, 8)
    assert torch.equal(raw.test.images, again.test.images)
    assert raw.train.images.shape == (1347, 1, 8, 8)
    counts = raw.train.labels.bincount() + raw.test.labels.bincount()
    for drawn, count in zip(raw.test.labels.bincount(), counts, strict=True):
        assert abs(drawn - count / 4) <= 0.5


def test_digits_are_never_resized_nor_looked_for():
    with pytest.raises(UserError, match=r"data\.size is 32"):
        read("digits", None, 32)
    with pytest.raises(UserError, match=r"data\.path"):
        read("digits", Path("somewhere"))


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote, as the official files are: byte strings, NumPy's old names."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def _save_bytes(self, value):
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = _save_bytes


def write_batch(path: Path, batch: dict[str, object]) -> None:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(batch)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue().replace(b"numpy._core.", b"numpy.core."))


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


@pytest.fixture
def cifar10_root(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    for number in range(1, 6):
        batch = {"batch_label": f"training batch {number} of 5", "data": rows(4, number)}
        labels = {"labels": [number, 0, 1, 2], "filenames": ["a.png"] * 4}
        write_batch(folder / f"data_batch_{number}", batch | labels)
    write_batch(folder / "test_batch", {"data": rows(3, 9), "labels": [9, 8, 7]})
    names = [f"class {number}" for number in range(10)]
    write_batch(folder / "batches.meta", {"label_names": names, "num_vis": 3072})
    return tmp_path


@pytest.fixture
def cifar100_root(tmp_path):
    folder = tmp_path / "cifar-100-python"
    for name, seed in (("train", 1), ("test", 2)):
        labels = {"fine_labels": [99, 5, 0], "coarse_labels": [19, 0, 1]}
        write_batch(folder / name, {"data": rows(3, seed), **labels})
    names = {
        "fine_label_names": [f"fine {number}" for number in range(100)],
        "coarse_label_names": [f"coarse {number}" for number in range(20)],
    }
    write_batch(folder / "meta", names)
    return tmp_path


@pytest.fixture
def web(tmp_path):
    """Serve the files of a folder on this machine: (address, folder)."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def test_cifar10_is_read_as_rows_of_red_green_and_blue_planes(cifar10_root):
    raw = read("cifar10", cifar10_root)
    planes = np.stack([rows(4, number) for number in range(1, 6)]).reshape(20, 3, 32, 32)
    assert np.array_equal(raw.train.images, planes)
    assert raw.train.labels.tolist() == [k for n in range(1, 6) for k in (n, 0, 1, 2)]
    assert np.array_equal(raw.test.images, rows(3, 9).reshape(3, 3, 32, 32))
    assert raw.test.labels.tolist() == [9, 8, 7]
    assert raw.classes == tuple(f"class {number}" for number in range(10))


def test_cifar100_has_fine_classes_and_groups_of_superclasses(cifar100_root):
    raw = read("cifar100", cifar100_root, 32)
    assert raw.test.labels.tolist() == [99, 5, 0]
    assert raw.classes[99] == "fine 99"
    assert raw.groups["superclass"].names[19] == "coarse 19"
    assert raw.groups["superclass"].ids.tolist() == [19, 0, 1]


def test_cifar_files_read_as_an_unguarded_unpickler_reads_them(cifar10_root):
    path = cifar10_root / "cifar-10-batches-py" / "data_batch_2"
    theirs = pickle.loads(path.read_bytes(), encoding="latin1")
    ours = unpickle(path)
    assert np.array_equal(ours.pop("data"), theirs.pop("data"))
    assert ours == theirs


@pytest.mark.parametrize("protocol", range(2, 5))
def test_cifar_files_of_a_newer_python_are_read_too(tmp_path, protocol):
    (tmp_path / "batch").write_bytes(pickle.dumps({"labels": [1, 2]}, protocol=protocol))
    assert unpickle(tmp_path / "batch") == {"labels": [1, 2]}


def test_cifar_code_in_a_pickle_is_not_run(cifar10_root):
    proof = cifar10_root / "proof"

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(proof),)

    path = cifar10_root / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps({"data": Attack()}))
    with pytest.raises(UserError, match=r"test_batch .*names (posix|nt)\.mkdir"):
        read("cifar10", cifar10_root)
    assert not proof.exists()
    pickle.loads(path.read_bytes())  # the attack is a real one
    assert proof.exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "exec", "__import__"])
def test_cifar_builtins_are_refused(tmp_path, name):
    (tmp_path / "batch").write_bytes(b"cbuiltins\n" + name.encode() + b"\n(S'1'\ntR.")
    with pytest.raises(UserError, match=f"builtins.{name}"):
        unpickle(tmp_path / "batch")


@settings(max_examples=80)
@given(st.data())
def test_cifar_damage_is_a_user_error_or_nothing(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged"
    write_batch(path, {"data": rows(1, 0)[:, :64], "labels": [1]})
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(UserError):
        assert isinstance(unpickle(path), dict)


@pytest.mark.parametrize(
    "batch",
    [
        ["no dict"],
        {"data": rows(2, 0)},
        {"data": rows(2, 0), "labels": [1]},
        {"data": rows(2, 0), "labels": [1, 10]},
        {"data": rows(2, 0), "labels": [1, "cat"]},
        {"data": rows(2, 0)[:, 1:], "labels": [1, 2]},
        {"data": rows(2, 0).astype(np.float32), "labels": [1, 2]},
        {"labels": [1, 2]},
    ],
)
def test_cifar_a_foreign_batch_is_refused_by_name(cifar10_root, batch):
    write_batch(cifar10_root / "cifar-10-batches-py" / "data_batch_3", batch)
    with pytest.raises(UserError, match=r"data_batch_3 is not an official CIFAR file"):
        read("cifar10", cifar10_root)


def test_cifar_is_never_resized(tmp_path):
    for name in ("cifar10", "cifar100"):
        with pytest.raises(UserError, match=r"data\.size is 64"):
            read(name, tmp_path, 64)


def test_cifar_without_files_and_network_says_what_to_put_where(tmp_path):
    archive = replace(cifar10.ARCHIVE, url="http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(UserError) as error:
        locate(archive, tmp_path)
    for part in (str(tmp_path / "cifar-10-batches-py"), "data_batch_1", "kriz/cifar.html"):
        assert part in str(error.value)


def test_cifar_is_downloaded_where_absent(cifar10_root, web, tmp_path):
    address, folder = web
    with tarfile.open(folder / "c.tar.gz", "w:gz") as tar:
        tar.add(cifar10_root / "cifar-10-batches-py", "cifar-10-batches-py")
    md5 = hashlib.md5((folder / "c.tar.gz").read_bytes()).hexdigest()
    archive = replace(cifar10.ARCHIVE, url=f"{address}/c.tar.gz", md5=md5)
    found = locate(archive, tmp_path / "new")
    assert (found / "test_batch").read_bytes() == (
        cifar10_root / "cifar-10-batches-py" / "test_batch"
    ).read_bytes()
    with pytest.raises(UserError, match="corrupt"):
        locate(replace(archive, md5="0" * 32), tmp_path / "other")


def test_of_two_experiments_one_downloads_cifar(cifar10_root, web, tmp_path, monkeypatch):
    address, folder = web
    with tarfile.open(folder / "c.tar.gz", "w:gz") as tar:
        tar.add(cifar10_root / "cifar-10-batches-py", "cifar-10-batches-py")
    archive, root = replace(cifar10.ARCHIVE, url=f"{address}/c.tar.gz", md5=None), tmp_path / "new"
    download, visible = utils.download_and_extract_archive, []

    def slow(*words, **options):
        download(*words, **options)
        time.sleep(0.2)
        visible.append((root / archive.folder).exists())

    monkeypatch.setattr(utils, "download_and_extract_archive", slow)
    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(lambda _: locate(archive, root), range(2))] == [root / archive.folder] * 2
    assert visible == [False], "one download, whose files appear whole"


def test_cifar_comes_from_where_torchvision_takes_it():
    for ours, theirs in ((cifar10, datasets.CIFAR10), (cifar100, datasets.CIFAR100)):
        archive = ours.ARCHIVE
        assert (archive.url, archive.md5) == (theirs.url, theirs.tgz_md5)
        assert archive.folder == theirs.base_folder
        assert archive.train == tuple(name for name, _ in theirs.train_list)
        assert archive.test == tuple(name for name, _ in theirs.test_list)
        assert archive.meta == theirs.meta["filename"]


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def folder(tmp_path):
    """Two classes, four training images and two test images each, 6x6."""
    for part, count in (("train", 10), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                image = picture(6, 6, seed=100 * label + number)
                image.save(tmp_path / part / name / f"{number:03}.png")
    return tmp_path


def write_groups(root: Path, lines: list[list[str]]) -> None:
    with (root / "groups.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 48))
def test_decode_equals_torchvision(tmp_path_factory, width, height, size):
    path = tmp_path_factory.getbasetemp() / "any.png"
    image = picture(width, height)
    image.save(path)
    steps = [v2.Resize(size, antialias=True), v2.CenterCrop(size), v2.PILToTensor()]
    assert np.array_equal(decode(path, size), v2.Compose(steps)(image))


def test_decode_leaves_an_image_of_the_right_size_alone(tmp_path):
    image = picture(32, 32)
    image.save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", 32).transpose(1, 2, 0), image)


def test_decode_averages_when_it_shrinks(tmp_path):
    """Antialiasing: a fine chequerboard becomes grey, not black or white."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    assert set(decode(tmp_path / "board.png", 8).flatten().tolist()) <= {127, 128}


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "PA"])
def test_decode_gives_three_channels_of_any_mode(tmp_path, mode):
    image = picture(5, 5).convert("RGBA").convert(mode) if "A" in mode else picture(5, 5, mode)
    image.save(tmp_path / "a.png" if mode != "PA" else tmp_path / "a.tif")
    decoded = decode(tmp_path / ("a.png" if mode != "PA" else "a.tif"), 5)
    assert decoded.shape == (3, 5, 5)
    if mode in {"L", "1", "LA"}:
        assert (decoded == decoded[0]).all()


def test_decode_turns_a_photograph_upright(tmp_path):
    image = picture(4, 4)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to show
    image.save(tmp_path / "turned.png", exif=exif)
    upright = np.rot90(np.asarray(image), -1)
    assert np.array_equal(decode(tmp_path / "turned.png", 4).transpose(1, 2, 0), upright)


def test_decode_names_a_file_that_is_no_image(tmp_path):
    whole = io.BytesIO()
    picture(20, 20).save(whole, "jpeg")
    deep = io.BytesIO()
    Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4)).save(deep, "png")
    for content in (b"", b"text", whole.getvalue()[:-300], deep.getvalue()):
        (tmp_path / "broken.jpg").write_bytes(content)
        with pytest.raises(UserError, match=r"broken\.jpg cannot be read"):
            decode(tmp_path / "broken.jpg", 8)


def test_image_folder_reads_classes_and_files_in_order_of_name(folder):
    raw = read("image_folder", folder, 6)
    assert raw.classes == ("cat", "dog")
    assert raw.train.labels.tolist() == [0] * 10 + [1] * 10
    assert raw.test.labels.tolist() == [0, 0, 1, 1]
    for row, seed in enumerate((0, 1, 100, 101)):
        expected = np.asarray(picture(6, 6, seed=seed)).transpose(2, 0, 1)
        assert np.array_equal(raw.test.images[row], expected)
    assert raw.val is None
    assert raw.groups == {}


def test_image_folder_has_32_pixels_unless_told_otherwise(folder):
    assert read("image_folder", folder).train.images.shape == (20, 3, 32, 32)


def test_image_folder_keeps_the_order_when_threads_share_the_work(folder):
    for number in range(2 * CHUNK):
        picture(1, 1, seed=number).save(folder / "train" / "cat" / f"x{number:05}.png")
    pixels = read("image_folder", folder, 1).train.images[10 : 10 + 2 * CHUNK].flatten(1)
    for number, pixel in enumerate(pixels):
        assert pixel.tolist() == list(picture(1, 1, seed=number).getpixel((0, 0)))


def test_image_folder_takes_a_validation_set_of_your_own(folder):
    (folder / "test").rename(folder / "val")
    with pytest.raises(UserError, match=r"test is not a folder"):
        read("image_folder", folder, 6)
    (folder / "test").mkdir()
    for name in ("cat", "dog"):
        (folder / "test" / name).mkdir()
        picture(6, 6).save(folder / "test" / name / "a.webp")
    assert read("image_folder", folder, 6).val.labels.tolist() == [0, 0, 1, 1]


def test_image_folder_passes_over_what_is_no_image_or_hidden(folder):
    (folder / "train" / "cat" / "notes.txt").write_text("meow")
    (folder / "train" / "cat" / ".hidden.png").write_text("no image")
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "README").write_text("about")
    assert len(read("image_folder", folder, 6).train) == 20


def test_image_folder_takes_nested_images_as_torchvision_does(folder, tmp_path):
    cat = folder / "train" / "cat"
    (cat / "wild" / "big").mkdir(parents=True)
    (cat / "003.png").rename(cat / "wild" / "big" / "003.png")
    (tmp_path / "elsewhere").mkdir()
    (cat / "007.png").rename(tmp_path / "elsewhere" / "007.png")
    (cat / "linked").symlink_to(tmp_path / "elsewhere")
    (cat / ".ipynb_checkpoints").mkdir()
    (cat / ".ipynb_checkpoints" / "000.png").write_text("a copy")
    ours = image_folder._files(folder / "train", ("cat", "dog"))
    theirs = [(Path(path), label) for path, label in datasets.ImageFolder(folder / "train").samples]
    assert {*ours} == {each for each in theirs if ".ipynb_checkpoints" not in each[0].parts}
    assert ours == sorted(ours, key=lambda each: (each[1], each[0]))
    assert len(read("image_folder", folder, 6).train) == 20


def test_image_folder_refuses_other_layouts(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(UserError, match=r"data\.path is null"):
        read("image_folder")
    with pytest.raises(UserError, match=r"train is not a folder"):
        read("image_folder", empty)
    (empty / "train" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match="one class, cat"):
        read("image_folder", empty)
    (folder / "test" / "owl").mkdir()
    with pytest.raises(UserError, match="differ in the classes owl"):
        read("image_folder", folder)
    (folder / "train" / "owl").mkdir()
    with pytest.raises(UserError, match=r"owl has no images"):
        read("image_folder", folder)


def test_image_folder_names_the_first_broken_file(folder):
    for name in ("003.png", "007.png"):
        (folder / "train" / "dog" / name).write_bytes(b"broken")
    with pytest.raises(UserError, match=r"dog.003\.png cannot be read"):
        read("image_folder", folder, 6)


def test_image_folder_groups_the_test_images_as_the_table_says(folder):
    lines = [["filename", "colour", "place"]]
    lines += [["train/cat/000.png", "grey", "sea"]]
    lines += [[f"test/dog/{n:03}.png", "red", f"place {n}"] for n in range(2)]
    lines += [[f"test/cat/{n:03}.png", "blue", f"place {n}"] for n in range(2)]
    write_groups(folder, lines)
    groups = read("image_folder", folder, 6).groups
    assert groups["colour"].names == ("blue", "red")
    assert groups["colour"].ids.tolist() == [0, 0, 1, 1]
    assert groups["place"].names == ("place 0", "place 1")
    assert groups["place"].ids.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "header"),
        ([["file", "colour"]], "header"),
        ([["filename"]], "header"),
        ([["filename", "classes"]], "distinct"),
        ([["filename", "a", "a"]], "distinct"),
        ([["filename", "a"], ["test/cat/000.png"]], "row 2: it must have one cell"),
        ([["filename", "a"], ["test/cat/000.png", ""]], "row 2: it must have one cell"),
        ([["filename", "a"], ["test/cat/000.png", "x", "y"]], "row 2: it must have one cell"),
        ([["filename", "a"], ["test/cat/000.png", "x"]] * 2, "no row for|is listed twice"),
        ([["filename", "a"], ["t", "x"], ["t", "y"]], "row 3: t is listed twice"),
        ([["filename", "a"], ["test/cat/000.png", "x"]], "no row for test/cat/001.png"),
    ],
)
def test_image_folder_refuses_a_table_that_does_not_say(folder, lines, why):
    write_groups(folder, lines)
    with pytest.raises(UserError, match=f"groups.csv.*({why})"):
        read("image_folder", folder, 6)


@pytest.mark.slow
def test_image_folder_on_real_images(tmp_path):
    """Two hundred CIFAR-10 JPEGs, where they are at hand: 32x32 and therefore not resampled."""
    with tarfile.open(shared.pack("cifar10.tar.xz")) as tar:
        wanted = [member for member in tar if member.name.endswith(("/0000.jpg", "/0009.jpg"))]
        shared.unpack(tar, tmp_path, wanted)
    raw = read("image_folder", tmp_path / "cifar10", 32)
    assert len(raw.classes) == 10
    assert len(raw.train) == len(raw.test) == 20
    with Image.open(tmp_path / "cifar10" / "train" / "cat" / "0009.jpg") as image:
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(raw.train.images[raw.classes.index("cat") * 2 + 1], expected)
