"""Multi30k: descriptions of photographs, translated from English into German.

Official raw files of task 1, unpacked, in ROOT/multi30k: train, val and test_2016_flickr, each
as .en and .de, one sentence a line. The vocabulary, shared by both languages, is learned from the
training split.

Source: Elliott et al. 2016, Multi30K: Multilingual English-German Image Descriptions.
"""

from pathlib import Path

from pipeline.data.base import RawData
from pipeline.data.formats import text, tokenizer

READS = ("multi30k",)  # parts of data.path whose change re-runs the stage `data`
FILES = {"train": "train", "val": "val", "test": "test_2016_flickr"}
LENGTH = 128  # tokens
PIECES = 4000

EXPECTED = (
    "there should be train, val and test_2016_flickr, each as .en and .de, from data/task1/raw of "
    "https://github.com/multi30k/dataset, unpacked; they are for non-commercial research, and the "
    "terms of Flickr30k apply to the English side; set data.path to the folder above multi30k"
)


def read(root: Path | None, size: int | None) -> RawData:
    """Return the sentence pairs under ``root``/multi30k as token ids, ``size`` (128) at most.

    Raises:
        UserError: a file is missing, or the languages have different numbers of lines.
    """
    folder = (root or Path("data")) / "multi30k"
    parts = {
        part: text.read_pairs(folder / stem, ("en", "de"), EXPECTED) for part, stem in FILES.items()
    }
    source, target = parts["train"]
    return text.prepare(parts, size or LENGTH, tokenizer.train([*source, *target], PIECES))
