"""Parallel text: corpora of one sentence a line, as token ids of a `Split`.

A corpus is STEM.en and STEM.de with equally many lines. A network reads token ids [N, 2, L]: the
source sentence, and the target shifted right by one, so that the decoder predicts the target token
of a column from the tokens before it.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data.base import IGNORE, RawData, Split
from pipeline.data.formats import tokenizer
from pipeline.errors import UserError

MOST = 100_000  # characters of a sentence; references take as many bytes each as the longest
Pairs = tuple[list[str], list[str]]  # sentences and their translations


def read_pairs(stem: Path, languages: tuple[str, str], expected: str) -> Pairs:
    """Return the sentences of ``stem``.SOURCE and ``stem``.TARGET, line by line.

    Pairs with an empty line are left out, as is usual. ``expected`` says which files there should
    be, and how to get them.

    Raises:
        UserError: a file is missing or not UTF-8 text, or the numbers of lines differ.
    """
    source, target = (_lines(stem, language, expected) for language in languages)
    if len(source) != len(target):
        raise UserError(
            f"{stem}.{languages[0]} has {len(source)} lines, but {stem}.{languages[1]} has "
            f"{len(target)}: get both again, {expected}"
        )
    pairs = [pair for pair in zip(source, target, strict=True) if all(pair)]
    if not pairs:
        raise UserError(f"{stem}.{languages[0]} has no sentence: {expected}")
    return [one for one, _ in pairs], [other for _, other in pairs]


def _lines(stem: Path, language: str, expected: str) -> list[str]:
    path = stem.with_name(f"{stem.name}.{language}")
    try:
        content = path.read_bytes().decode("utf-8")
    except OSError:
        raise UserError(f"{path} is missing: {expected}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: get it again, {expected}") from None
    # splitlines() and read_text() would also split at U+2028 or a lone carriage return, which occur
    # inside sentences.
    lines = [line.strip() for line in content.removesuffix("\n").split("\n")]
    for number, line in enumerate(lines, start=1):
        if len(line) > MOST:
            raise UserError(
                f"{path}, line {number} has {len(line)} characters, and a sentence has at most "
                f"{MOST}: get it again, or remove the line"
            )
    return lines


def prepare(
    parts: dict[str, Pairs],
    length: int,
    vocabulary: bytes,
    *,
    padded: int | None = None,
    prompt: str = "",
) -> RawData:
    """Return the pairs of train, val and test as token ids of ``vocabulary``.

    There are as many columns as the longest sentence has tokens, at most ``length``; longer
    sentences are cut. Reference translations of val and test are also kept as text, for BLEU.

    Args:
        parts: sentences and translations, by split.
        length: the largest number of tokens, the end of the sentence included.
        vocabulary: a SentencePiece model.
        padded: the number of classes, if larger than the vocabulary.
        prompt: text before each source sentence.
    """
    encoded = {
        name: (
            tokenizer.encode(vocabulary, [prompt + sentence for sentence in source]),
            tokenizer.encode(vocabulary, target),
        )
        for name, (source, target) in parts.items()
    }
    longest = max(len(ids) for sides in encoded.values() for side in sides for ids in side)
    splits = {}
    for name, sides in encoded.items():
        source, target = (tokenizer.table(side, min(length, longest)) for side in sides)
        splits[name] = _split(source, target, None if name == "train" else parts[name][1])
    stored = torch.frombuffer(bytearray(vocabulary), dtype=torch.uint8)
    return RawData(
        splits["train"],
        splits["test"],
        _classes(vocabulary, padded),
        val=splits["val"],
        task="translation",
        extras={"vocabulary": stored},
    )


def _classes(vocabulary: bytes, padded: int | None) -> tuple[str, ...]:
    names = tokenizer.names(vocabulary)
    more = range((padded or len(names)) - len(names))
    return (*names, *(f"<extra_{number}>" for number in more))


def _split(source: Tensor, target: Tensor, references: Sequence[str] | None) -> Split:
    """Return token ids [N, 2, L], source and shifted target, with the target [N, L] to predict."""
    shifted = target.roll(1, dims=1)
    shifted[:, 0] = tokenizer.PAD  # T5's first decoder input
    shifted.masked_fill_(
        shifted == tokenizer.END, tokenizer.PAD
    )  # nothing is predicted after the end
    labels = target.masked_fill(target == tokenizer.PAD, IGNORE)
    text = None if references is None else as_bytes(references)
    return Split(torch.stack([source, shifted], 1), labels, text)


def as_bytes(lines: Sequence[str]) -> Tensor:
    """Return ``lines`` as UTF-8 padded with zeros, uint8 [N, bytes of the longest]."""
    coded = [line.encode() for line in lines]
    width = max(len(code) for code in coded)
    flat = bytearray(b"".join(code.ljust(width, b"\0") for code in coded))
    return torch.frombuffer(flat, dtype=torch.uint8).view(len(coded), width)


def as_lines(text: Tensor) -> list[str]:
    """Return the lines of a tensor of `as_bytes`."""
    return [bytes(row).rstrip(b"\0").decode() for row in text.numpy()]
