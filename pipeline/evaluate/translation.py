"""Evaluation of a translation model: BLEU on text, accuracy and loss on the references' tokens."""

from typing import Any

from torch import Tensor

from pipeline.data.base import IGNORE, Dataset, Split
from pipeline.evaluate.bleu import split_bleu


def summary(
    predictions: Tensor,
    split: Split,
    data: Dataset,
    *,
    groups: bool = True,  # noqa: ARG001
) -> dict[str, Any]:
    """Return the metrics of the test split.

    Args:
        predictions: the task's predictions, float [N, 3, L] (pipeline/tasks/translation.py).
        split: the test split, with reference text.
        data: the data set of the split, with the vocabulary.
        groups: without effect; sentences have no groups.

    Returns:
        test_bleu, in [0, 1]; test_bleu_signature and test_brevity_penalty, as sacrebleu gives them;
        test_accuracy, the fraction of the reference tokens that score highest given the tokens
        before; test_loss, their mean cross-entropy; test_examples, the number of sentences.
    """
    result = split_bleu(predictions[:, 0], split, data)
    counted = split.labels != IGNORE
    return {
        "test_bleu": result.score,
        "test_bleu_signature": result.signature,
        "test_brevity_penalty": result.brevity_penalty,
        "test_accuracy": float(predictions[:, 2][counted].double().mean()),
        "test_loss": -float(predictions[:, 1][counted].double().mean()),
        "test_examples": len(split),
    }
