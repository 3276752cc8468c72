"""WMT16's news translation task, English to German, in plain text.

Files in ROOT/wmt16, one sentence a line: the training corpora under their official names,
europarl-v7.de-en, commoncrawl.de-en and news-commentary-v11.de-en, each as .en and .de (at
least one), newstest2015 for validation and newstest2016 for the test. With T5's vocabulary beside
them, spiece.model, the dense network can start from T5's weights (both are files of
google-t5/t5-small on Hugging Face, licence Apache 2.0; network.weights names model.safetensors);
without it, a vocabulary of 32,000 pieces is learned from the training corpora.

The paper holds out a tenth of the training data for validation, which would have to be decoded for
every soup here. All three corpora are 4.5 million pairs, 14 GB once prepared.

Source: Bojar et al. 2016, Findings of the 2016 Conference on Machine Translation; Raffel et al.
2020 (T5: vocabulary, and the prompt before a source sentence).
"""

from pathlib import Path

from pipeline.data.base import RawData
from pipeline.data.formats import text, tokenizer
from pipeline.errors import UserError

READS = ("wmt16",)  # parts of data.path whose change re-runs the stage `data`
CORPORA = ("europarl-v7.de-en", "commoncrawl.de-en", "news-commentary-v11.de-en")
TESTS = {"val": "newstest2015", "test": "newstest2016"}
LANGUAGES = ("en", "de")
LENGTH = 128  # tokens
PIECES = 32_000
SENTINELS, MULTIPLE = 100, 128  # T5's 32,000 pieces and its sentinels fill 32,128 rows
PROMPT = "translate English to German: "

EXPECTED = (
    f"there should be one or more of {', '.join(CORPORA)}, each as .en and .de, unpacked from the "
    "training data of https://www.statmt.org/wmt16/translation-task.html (free to use for "
    "research), and newstest2015 and newstest2016 as .en and .de, from `sacrebleu -t wmt15 -l "
    "en-de --echo src` (and ref, and wmt16); set data.path to the folder above wmt16"
)


def read(root: Path | None, size: int | None) -> RawData:
    """Return the sentence pairs under ``root``/wmt16 as token ids, ``size`` (128) at most.

    Raises:
        UserError: a file is missing, or the languages have different numbers of lines.
    """
    folder = (root or Path("data")) / "wmt16"
    present = [name for name in CORPORA if (folder / f"{name}.en").exists()]
    if not present:
        raise UserError(f"{folder} has no training corpus: {EXPECTED}")
    corpora = [text.read_pairs(folder / name, LANGUAGES, EXPECTED) for name in present]
    parts = {
        part: text.read_pairs(folder / name, LANGUAGES, EXPECTED) for part, name in TESTS.items()
    }
    source, target = ([line for corpus in corpora for line in corpus[side]] for side in (0, 1))
    parts["train"] = source, target
    t5_vocabulary = folder / "spiece.model"
    if not t5_vocabulary.is_file():
        return text.prepare(parts, size or LENGTH, tokenizer.train([*source, *target], PIECES))
    vocabulary = t5_vocabulary.read_bytes()
    if not tokenizer.is_vocabulary(vocabulary):
        raise UserError(
            f"{t5_vocabulary} is not T5's vocabulary: get it again, or remove it to learn one"
        )
    rows = -(-(len(tokenizer.names(vocabulary)) + SENTINELS) // MULTIPLE) * MULTIPLE
    return text.prepare(parts, size or LENGTH, vocabulary, padded=rows, prompt=PROMPT)
