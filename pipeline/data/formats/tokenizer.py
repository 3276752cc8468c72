"""Tokenizer: a SentencePiece vocabulary with T5's special tokens."""

import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.optional_imports import extra

PAD, END, UNKNOWN = 0, 1, 2  # as in T5's own vocabulary
MOST = 1_000_000  # sentences from which a vocabulary is learned


def train(sentences: Sequence[str], size: int) -> bytes:
    """Return a unigram vocabulary of at most ``size`` pieces, as SentencePiece stores it.

    Learned from all ``sentences``, or from a million spread evenly over them, by one thread and
    without sampling: equal sentences give equal bytes. A text too short for ``size`` pieces gives
    fewer.

    Raises:
        UserError: the text has more distinct characters than ``size``.

    Source: Kudo 2018, Subword Regularization (unigram); Kudo & Richardson 2018 (SentencePiece).
    """
    model = io.BytesIO()
    step = -(-len(sentences) // MOST)
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(sentences[::step]),
            model_writer=model,
            model_type="unigram",
            vocab_size=size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            num_threads=1,
            pad_id=PAD,
            eos_id=END,
            unk_id=UNKNOWN,
            bos_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(
            f"no vocabulary of {size} pieces can be learned from {len(sentences)} sentences "
            f"({' '.join(str(error).split())}): give more text"
        ) from None
    return model.getvalue()


def is_vocabulary(content: bytes) -> bool:
    """Say whether ``content`` is a SentencePiece model with T5's special tokens."""
    try:
        processor = _processor(content)
    except RuntimeError:
        return False
    special = processor.pad_id(), processor.eos_id(), processor.unk_id()
    return special == (PAD, END, UNKNOWN)


def encode(vocabulary: bytes, sentences: Sequence[str]) -> list[list[int]]:
    """Return the ids of each sentence, ended with `END`."""
    ids: list[list[int]] = _processor(vocabulary).encode(list(sentences), add_eos=True)
    return ids


def table(sentences: Sequence[Sequence[int]], columns: int) -> Tensor:
    """Return int64 [N, columns]: ids padded with `PAD`, or cut and ended with `END`."""
    result = torch.full((len(sentences), columns), PAD)
    for row, ids in zip(result, sentences, strict=True):
        if len(ids) > columns:
            row[:] = torch.tensor([*ids[: columns - 1], END])
        else:
            row[: len(ids)] = torch.tensor(ids)
    return result


def decode(vocabulary: bytes, ids: Tensor) -> list[str]:
    """Return the text of each row of ``ids``, int64 [N, L], up to its `END` or `PAD`.

    Ids beyond the vocabulary, which a padded network may output, are skipped.
    """
    processor = _processor(vocabulary)
    known = processor.get_piece_size()
    rows = []
    for row in ids.tolist():
        ends = [row.index(stop) for stop in (PAD, END) if stop in row]
        rows.append([number for number in row[: min(ends, default=len(row))] if number < known])
    lines: list[str] = processor.decode(rows)
    return lines


def names(vocabulary: bytes) -> list[str]:
    """Return all pieces, by id."""
    processor = _processor(vocabulary)
    return [processor.id_to_piece(number) for number in range(processor.get_piece_size())]


def _processor(vocabulary: bytes) -> Any:
    return _sentencepiece().SentencePieceProcessor(model_proto=vocabulary)


def _sentencepiece() -> Any:
    return extra("sentencepiece", "translation")
