"""The code that MLflow stores with a registered soup. It imports nothing of this project."""

from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class Soup(PythonModel):
    """Maps images uint8 [B, C, H, W] to class probabilities float32 [B, K]."""

    def load_context(self, context: Any) -> None:
        """Load the exported graph, which includes normalisation and softmax."""
        self.module = torch.export.load(context.artifacts["soup"]).module()

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002
        """Return the output for each image of ``model_input``, or each pair of sentences."""
        values = np.asarray(model_input)
        dtype = np.int64 if values.dtype == np.int64 else np.uint8  # token ids, or pixels
        examples = torch.from_numpy(np.ascontiguousarray(values, dtype=dtype))
        with torch.inference_mode():
            return self.module(examples).numpy()


set_model(Soup())
