"""Valid raw files of every data set, small."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.data import base, build, imagenet, wmt16
from tests.fuzz.mutations import picture

FORMATS = {"png": "PNG", "jpg": "JPEG", "bmp": "BMP", "gif": "GIF", "ppm": "PPM", "tif": "TIFF"}
WNIDS = ("n01440764", "n02123045")


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_images(folder: Path) -> None:
    for part in ("train", "test", "val"):
        for label in ("cat", "dog"):
            for suffix, kind in (
                {**FORMATS, "webp": "WEBP"} if label == "cat" else FORMATS
            ).items():
                if part == "train" or suffix == "png":
                    put(folder / part / label / f"a.{suffix}", picture(kind))
    names = sorted(p.relative_to(folder).as_posix() for p in (folder / "test").rglob("*.*"))
    rows = [f"{name},{number % 2},{'a' * number}b" for number, name in enumerate(names)]
    put(folder / "groups.csv", "\n".join(["filename,hospital,scanner", *rows, ""]))


def prepared(
    read: Callable[[Path, int | None], base.RawData], size: int | None = None
) -> Callable[[Path], object]:
    """Return a function that prepares a data set as the stage `data` does."""

    def run(folder: Path) -> None:
        out = folder / "prepared"
        shutil.rmtree(out, ignore_errors=True)
        base.save(build.prepare("fuzz", read(folder, size), seed=0), out)

    return run


def write_camvid(folder: Path) -> None:
    for part in ("train", "val", "test"):
        for number, suffix in enumerate(("png", "jpg")):
            put(folder / f"camvid/{part}/{number}.{suffix}", picture(FORMATS[suffix]))
            put(folder / f"camvid/{part}annot/{number}.png", picture("PNG", mode="L"))


def write_cityscapes(folder: Path) -> None:
    for part, city in (("train", "ulm"), ("train", "bonn"), ("val", "lindau")):
        for number in range(6):
            stem = f"{part}/{city}/{city}_{number}"
            put(folder / f"cityscapes/leftImg8bit/{stem}_leftImg8bit.png", picture("PNG"))
            put(folder / f"cityscapes/gtFine/{stem}_gtFine_labelIds.png", picture("PNG", mode="L"))


def write_celeba(folder: Path) -> None:
    names = [f"{number:06d}.jpg" for number in range(1, 10)]
    for name in names:
        put(folder / "celeba/img_align_celeba" / name, picture("JPEG"))
    rows = [f"{name} -1  {1 - 2 * (i % 2)} {1 - 2 * (i // 2 % 2)}" for i, name in enumerate(names)]
    lists = {"attr": ["9", "Bald Blond_Hair Male", *rows],
             "eval_partition": [f"{name} {i % 3}" for i, name in enumerate(names)]}  # fmt: skip
    put(folder / "celeba/list_attr_celeba.txt", "\n".join([*lists["attr"], ""]))
    put(folder / "celeba/list_eval_partition.txt", "\n".join([*lists["eval_partition"], ""]))


def write_imagenet(folder: Path) -> None:
    for part in ("train", "val"):
        for wnid in WNIDS:
            for number in range(5):
                size = (300, 280) if number else (40, 60)
                put(folder / f"imagenet/{part}/{wnid}/{wnid}_{number}.JPEG", picture("JPEG", size))
    put(folder / "imagenet/LOC_synset_mapping.txt", f"{WNIDS[0]} tench, fish\n{WNIDS[1]} tabby\n")


def read_imagenet(folder: Path, size: int | None) -> base.RawData:
    return imagenet.read(folder, size or 16)


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def write_batch(path: Path, batch: dict[str, object]) -> None:
    put(path, pickle.dumps(batch, protocol=4))


def write_cifar(folder: Path) -> None:
    for number in range(1, 6):
        batch = {"data": rows(4, number), "labels": [number, 0, 1, 2], "filenames": ["a"] * 4}
        write_batch(folder / f"cifar-10-batches-py/data_batch_{number}", batch)
    write_batch(
        folder / "cifar-10-batches-py/test_batch", {"data": rows(3, 9), "labels": [9, 8, 7]}
    )
    names = [f"class {number}" for number in range(10)]
    write_batch(folder / "cifar-10-batches-py/batches.meta", {"label_names": names})
    for name, seed in (("train", 1), ("test", 2)):
        fine = [99, 5, 0, *range(20)]
        labels = {"fine_labels": fine, "coarse_labels": [each % 20 for each in fine]}
        write_batch(folder / "cifar-100-python" / name, {"data": rows(23, seed), **labels})
    levels = {"fine_label_names": [f"f{n}" for n in range(100)],
              "coarse_label_names": [f"c{n}" for n in range(20)]}  # fmt: skip
    write_batch(folder / "cifar-100-python/meta", levels)


def write_sentences(folder: Path, name: str, stems: tuple[str, ...]) -> None:
    words = ["dog", "tree", "man", "boy", "car", "runs", "sees", "hears", "likes", "a", "the"]
    for stem in stems:
        for language in ("en", "de"):
            lines = (f"{words[i % 11]} {language} {words[i * 7 % 11]}\n" for i in range(40))
            put(folder / name / f"{stem}.{language}", "".join(lines))


def write_wmt16(folder: Path) -> None:
    from pipeline.data.formats import tokenizer

    write_sentences(folder, "wmt16", (wmt16.CORPORA[0], *wmt16.TESTS.values()))
    text = (folder / "wmt16" / f"{wmt16.CORPORA[0]}.en").read_text().splitlines()
    put(folder / "wmt16/spiece.model", tokenizer.train(text, 60))
