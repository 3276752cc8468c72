"""CIFAR-100: 60,000 colour photographs, 32x32, of 100 classes in 20 superclasses."""

from pathlib import Path

from pipeline.data.base import Groups, RawData, fixed_size
from pipeline.data.formats.cifar import Archive, class_names, ids, locate, read_split

READS = ()  # the files are official downloads, and not watched for changes
ARCHIVE = Archive(
    name="CIFAR-100",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    folder="cifar-100-python",
    train=("train",),
    test=("test",),
    meta="meta",
)


def read(root: Path | None, size: int | None) -> RawData:
    """Return CIFAR-100 from ``root/cifar-100-python``, with its superclasses as test groups."""
    fixed_size("cifar100", size, 32)
    folder = locate(ARCHIVE, root or Path("data"))
    classes = class_names(folder / "meta", "fine_label_names")
    superclasses = class_names(folder / "meta", "coarse_label_names")
    train = read_split([folder / "train"], "fine_labels", classes)
    test = read_split([folder / "test"], "fine_labels", classes)
    groups = Groups(superclasses, ids(folder / "test", "coarse_labels", superclasses))
    return RawData(train, test, classes, {"superclass": groups})
