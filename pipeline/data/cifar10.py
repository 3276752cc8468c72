"""CIFAR-10: 60,000 colour photographs, 32x32, of 10 classes; 50,000 for training."""

from pathlib import Path

from pipeline.data.base import RawData, fixed_size
from pipeline.data.formats.cifar import Archive, class_names, locate, read_split

READS = ()  # the files are official downloads, and not watched for changes
ARCHIVE = Archive(
    name="CIFAR-10",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test=("test_batch",),
    meta="batches.meta",
)


def read(root: Path | None, size: int | None) -> RawData:
    """Return CIFAR-10 from the official files in ``root/cifar-10-batches-py``."""
    fixed_size("cifar10", size, 32)
    folder = locate(ARCHIVE, root or Path("data"))
    classes = class_names(folder / ARCHIVE.meta, "label_names")
    train = read_split([folder / name for name in ARCHIVE.train], "labels", classes)
    test = read_split([folder / name for name in ARCHIVE.test], "labels", classes)
    return RawData(train, test, classes)
