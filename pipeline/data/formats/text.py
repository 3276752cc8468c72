"""Parallel text, one sentence a line in two files, and its way into a `Split` and back.

Plain-text corpora come as STEM.en and STEM.de of equally many lines. What a network reads are
token ids [N, 2, L]: the source sentence, and the target shifted right by one, which is what the
decoder has seen when it predicts the target token of the same column.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data.base import IGNORE, RawData, Split
from pipeline.data.formats import tokenizer
from pipeline.errors import UserError

Pairs = tuple[list[str], list[str]]  # sentences and their translations


def read_pairs(stem: Path, languages: tuple[str, str], expected: str) -> Pairs:
    """Return the sentences of ``stem``.SOURCE and ``stem``.TARGET, line by line.

    Pairs of which one line is empty are left out, as is usual. ``expected`` says which files
    there should be, and how to get them.

    Raises:
        UserError: a file is absent or no UTF-8 text, or they have not equally many lines.
    """
    source, target = (_lines(stem, language, expected) for language in languages)
    if len(source) != len(target):
        raise UserError(
            f"{stem}.{languages[0]} has {len(source)} lines, but {stem}.{languages[1]} has "
            f"{len(target)}: get both anew, {expected}"
        )
    whole = [pair for pair in zip(source, target, strict=True) if all(pair)]
    if not whole:
        raise UserError(f"{stem}.{languages[0]} holds no sentence: {expected}")
    return [one for one, _ in whole], [other for _, other in whole]


def _lines(stem: Path, language: str, expected: str) -> list[str]:
    path = stem.with_name(f"{stem.name}.{language}")
    try:
        content = path.read_bytes().decode("utf-8")
    except OSError:
        raise UserError(f"{path} is missing: {expected}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no UTF-8 text: get it anew, {expected}") from None
    # Neither splitlines() nor read_text(), which also cut at U+2028 or at a lone carriage return,
    # inside a sentence.
    return [line.strip() for line in content.removesuffix("\n").split("\n")]


def prepare(
    parts: dict[str, Pairs],
    length: int,
    vocabulary: bytes,
    *,
    padded: int | None = None,
    ask: str = "",
) -> RawData:
    """Return the pairs of train, val and test as token ids, with the vocabulary that made them.

    All sentences have as many columns as the longest one has tokens, but at most ``length``: what
    is longer is cut. The reference translations of val and test are kept as they are written,
    since BLEU is measured on text.

    Args:
        parts: sentences and translations, by split.
        length: the largest number of tokens, the end of the sentence included.
        vocabulary: a SentencePiece model.
        padded: the number of classes, where it is larger than the vocabulary.
        ask: what is put before each source sentence.
    """
    encoded = {
        name: (
            tokenizer.encode(vocabulary, [ask + sentence for sentence in source]),
            tokenizer.encode(vocabulary, target),
        )
        for name, (source, target) in parts.items()
    }
    longest = max(len(ids) for sides in encoded.values() for side in sides for ids in side)
    columns = min(length, longest)
    splits = {
        name: _split(
            tokenizer.table(source, columns),
            tokenizer.table(target, columns),
            None if name == "train" else parts[name][1],
        )
        for name, (source, target) in encoded.items()
    }
    names = tokenizer.names(vocabulary)
    names += [f"<extra_{number}>" for number in range((padded or len(names)) - len(names))]
    stored = torch.frombuffer(bytearray(vocabulary), dtype=torch.uint8)
    return RawData(
        splits["train"],
        splits["test"],
        tuple(names),
        val=splits["val"],
        task="translation",
        extras={"vocabulary": stored},
    )


def _split(source: Tensor, target: Tensor, references: Sequence[str] | None) -> Split:
    """Return token ids [N, 2, L], source and shifted target, with the target [N, L] to predict."""
    shifted = target.roll(1, dims=1)
    shifted[:, 0] = tokenizer.PAD  # what T5's decoder starts from
    shifted.masked_fill_(
        shifted == tokenizer.END, tokenizer.PAD
    )  # nothing is predicted after the end
    labels = target.masked_fill(target == tokenizer.PAD, IGNORE)
    text = None if references is None else as_bytes(references)
    return Split(torch.stack([source, shifted], 1), labels, text)


def as_bytes(lines: Sequence[str]) -> Tensor:
    """Return ``lines`` as UTF-8 with zeros behind, uint8 [N, bytes of the longest]."""
    coded = [line.encode() for line in lines]
    width = max(len(code) for code in coded)
    flat = bytearray(b"".join(code.ljust(width, b"\0") for code in coded))
    return torch.frombuffer(flat, dtype=torch.uint8).view(len(coded), width)


def as_lines(text: Tensor) -> list[str]:
    """Return the lines that `as_bytes` stored."""
    return [bytes(row).rstrip(b"\0").decode() for row in text.numpy()]
