"""Classification: one label an example; the score is top-1 accuracy."""

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.data.base import Dataset, Split
from pipeline.evaluate import metrics
from pipeline.tasks.base import Task
from pipeline.train.predict import logits


class Classification(Task):
    """Keeps the logits, float32 [N, K], for all metrics and the ensemble."""

    metric = "accuracy"

    def predict(self, model: nn.Module, data: Dataset, split: Split) -> Tensor:
        """Return the logits [N, K]."""
        return logits(model, split.images, data.mean, data.std).cpu()

    def measure(self, predictions: Tensor, split: Split, data: Dataset) -> dict[str, float]:  # noqa: ARG002
        """Return the micro-averaged accuracy and the mean cross-entropy."""
        return {
            "accuracy": metrics.accuracy(predictions, split.labels),
            "loss": metrics.loss(predictions, split.labels),
        }

    def ensemble(self, predictions: Sequence[Tensor]) -> Tensor:
        """Return the logits whose softmax is the mean of all softmax outputs."""
        return metrics.ensemble(predictions)

    def scores_shape(self, labels: Tensor, classes: int) -> tuple[int | None, ...]:
        """Return [N, K]."""
        return (len(labels), classes)


TASK = Classification()
