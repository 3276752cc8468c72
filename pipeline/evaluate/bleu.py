"""BLEU by sacrebleu, on text, as a fraction in [0, 1]."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeline.data.base import Dataset, Split
from pipeline.data.formats import text, tokenizer
from pipeline.optional_imports import extra


@dataclass(frozen=True)
class Bleu:
    """The score of a corpus, in [0, 1], and its parts.

    Attributes: brevity_penalty, in [0, 1], 1 if the translations are not too short; signature,
    sacrebleu's settings and version, on which scores must agree to be compared.
    """

    score: float
    brevity_penalty: float
    signature: str


def bleu(translations: Sequence[str], references: Sequence[str]) -> Bleu:
    """Return the BLEU of ``translations`` with one reference each, by sacrebleu's defaults.

    score = BP * (p_1 p_2 p_3 p_4)^(1/4), with p_n the corpus's precision of n-grams, and
    BP = min(1, exp(1 - r / c)) of the lengths c of the translations and r of the references.

    Source: Papineni et al. 2002 (BLEU); Post 2018, A Call for Clarity in Reporting BLEU Scores.
    """
    metric = extra("sacrebleu.metrics", "translation").BLEU(
        force=True
    )  # no warning about tokenised text
    result = metric.corpus_score(list(translations), [list(references)])
    # Rounding lets a perfect corpus score 100.00000000000004.
    score = min(1.0, result.score / 100)
    return Bleu(score, float(result.bp), str(metric.get_signature()))


def split_bleu(translations: Tensor, split: Split, data: Dataset) -> Bleu:
    """Return the BLEU of ``translations``, token ids [N, L], of the sentences of ``split``.

    References are the split's text; the training split has none, so its token ids are decoded.
    """
    vocabulary = bytes(data.extras["vocabulary"].numpy())
    if split.text is None:
        references = tokenizer.decode(vocabulary, split.labels.clamp(min=tokenizer.PAD))
    else:
        references = text.as_lines(split.text)
    return bleu(tokenizer.decode(vocabulary, translations.long()), references)
