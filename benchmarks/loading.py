"""Packed images against the obvious DataLoader, in one interleaved run.

    python -m benchmarks.loading ../shared/data/imagenet-sample.tar.xz
    python -m benchmarks.loading ../shared/data/imagenet-sample.tar.xz --short-side 375

Both hand out batches of random resized crops at 224 pixels, flipped and normalised: ours from the
file that `prepare` packs, decoded by as many threads as there are cores; the obvious way is
torchvision's ImageFolder, RandomResizedCrop, RandomHorizontalFlip, ToTensor and Normalize in a
DataLoader with two worker processes. Epochs alternate (theirs, ours, theirs, ours...); printed are
medians over the rounds and the ratio's spread; with ``--loader-workers 0`` also those of the core
time, which a busy machine does not change. The sample's images are small (96 pixels on the
short side); ``--short-side`` enlarges them first: ImageNet's own have 375 on average.
"""

import argparse
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets, transforms

from benchmarks.loop import hardware
from pipeline.data import imagenet
from pipeline.data.base import load, save
from pipeline.data.build import prepare
from pipeline.train.batches import Batches
from pipeline.train.malloc import configure_malloc
from pipeline.train.settings import Augmentation

# Hands out one epoch; returns the images a second and the milliseconds of a core that each took.
Run = Callable[[], tuple[float, float]]


def unpacked(archive: Path, folder: Path, short: int | None) -> Path:
    """Unpack the sample's images as ``folder``/train and val, which are the same."""
    with tarfile.open(archive) as file:
        file.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    images = next(folder.glob("*/val")).rename(folder / "train")
    for path in sorted(images.glob("*/*.JPEG")) if short else ():
        with Image.open(path) as image:
            width, height = (side * short // min(image.size) for side in image.size)
            image.resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)
    (folder / "val").symlink_to(images)
    return folder


def obvious(root: Path, options: argparse.Namespace) -> Run:
    """Return the obvious way to load the images under ``root``."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(imagenet.MEAN, imagenet.STD),
        ]
    )
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(root / "train"), transform),
        options.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=options.loader_workers,
        persistent_workers=options.loader_workers > 0,
    )
    return lambda: throughput(loader)


def ours(root: Path, options: argparse.Namespace) -> Run:
    """Return our way to load the images under ``root``, once they are prepared."""
    start = time.perf_counter()
    save(prepare("imagenet", imagenet.read(root, 224), seed=0), root / "packed")
    print(f"packed once in {time.perf_counter() - start:.1f} s")
    data, augmentation = load(root / "packed"), Augmentation(flip=True, resized_crop=0.08)
    device = torch.device("cpu")
    batches = Batches(data, options.batch_size, augmentation, seed=0, device=device)
    return lambda: throughput(batches.epoch())


def throughput(batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Return what one pass over ``batches`` takes; worker processes' core time is not seen."""
    start, worked = time.perf_counter(), time.process_time()
    count = sum(len(images) for images, _ in batches)
    worked = time.process_time() - worked
    return count / (time.perf_counter() - start), 1000 * worked / count


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path, help="a tar of NAME/val/WNID/*.JPEG")
    parser.add_argument("--short-side", type=int, help="pixels to enlarge the images to")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--loader-workers", type=int, default=2, help="of the obvious way")
    options = parser.parse_args()
    torch.set_num_threads(1)
    configure_malloc()  # as training does
    with tempfile.TemporaryDirectory() as folder:
        root = unpacked(options.archive, Path(folder), options.short_side)
        ways = [obvious(root, options), ours(root, options)]
        for way in ways:
            way()  # warm up
        rounds = [[way() for way in ways] for _ in range(options.rounds)]
    print(hardware("cpu"))
    print(f"batches of {options.batch_size}, {options.rounds} rounds")
    table("images/s", [[speed for speed, _ in row] for row in rounds], faster=True)
    if options.loader_workers == 0:
        table("ms of a core", [[cost for _, cost in row] for row in rounds], faster=False)


def table(unit: str, rounds: list[list[float]], *, faster: bool) -> None:
    """Print the medians of both ways and how much better ours is; a larger number is ``faster``."""
    for name, values in zip(("obvious", "ours"), zip(*rounds, strict=True), strict=True):
        print(f"  {name:8} {statistics.median(values):8.4g} {unit}")
    ratios = sorted(one / other if faster else other / one for other, one in rounds)
    print(f"  ratio {statistics.median(ratios):.2f}  (from {ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
