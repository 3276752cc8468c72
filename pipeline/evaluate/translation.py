"""What a translator is worth: BLEU on text, and how well it predicts the references' tokens."""

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
    """Return everything that the evaluation of the test split reports.

    Args:
        predictions: what the task keeps, float [N, 3, L] (pipeline/tasks/translation.py).
        split: the test split, with reference text.
        data: the data set that it is of, with the vocabulary.
        groups: sentences are in none.

    Returns:
        test_bleu, in [0, 1]; test_bleu_signature and test_brevity_penalty, as sacrebleu gives them;
        test_accuracy, the share of the reference tokens that score highest given those
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
