"""The code that MLflow stores beside a registered soup; it stands alone, without this project."""

from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class Soup(PythonModel):
    """What the soup answers, class probabilities float32 [B, K], to images uint8 [B, C, H, W]."""

    def load_context(self, context: Any) -> None:
        """Load the exported graph, normalisation and softmax included."""
        self.module = torch.export.load(context.artifacts["soup"]).module()

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002
        """Return the answer to each image of ``model_input``, or to each pair of sentences."""
        own = np.asarray(model_input)
        dtype = np.int64 if own.dtype == np.int64 else np.uint8  # token ids, or pixels
        images = torch.from_numpy(np.ascontiguousarray(own, dtype=dtype))
        with torch.inference_mode():
            return self.module(images).numpy()


set_model(Soup())
