"""The code that MLflow stores with a registered soup.

It imports nothing of this project, unless the model is loaded with model_config={"runtime":
"sparse"}, for `pipeline.inference`.
"""

import os
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

OPAQUE = b"opaque_obj"  # beginning of the names of pickled constants in PyTorch's archives
FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # PyTorch's variable


class Soup(PythonModel):
    """Maps images uint8 [B, C, H, W] to class probabilities float32 [B, K]."""

    def load_context(self, context: Any) -> None:
        """Load the exported graph, which includes normalisation and softmax.

        With the runtime "sparse" load the network that skips pruned weights.
        """
        runtime = (context.model_config or {}).get("runtime", "torch")
        if runtime == "torch":
            self.module: Any = _exported(context.artifacts["soup"])
        elif runtime == "sparse" and "sparse" in context.artifacts:
            from pipeline import inference  # noqa: PLC0415

            network = inference.load(Path(context.artifacts["sparse"]), torch.get_num_threads())
            self.module = lambda images: network(images.float()).softmax(1)
        else:
            known = "torch or sparse" if "sparse" in context.artifacts else "torch for this network"
            raise ValueError(f"the runtime of model_config is {runtime!r}, but must be {known}.")

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002
        """Return the output for each image of ``model_input``, or each pair of sentences."""
        values = np.asarray(model_input)
        dtype = np.int64 if values.dtype == np.int64 else np.uint8  # token ids, or pixels
        examples = torch.from_numpy(np.ascontiguousarray(values, dtype=dtype))
        with torch.inference_mode():
            return self.module(examples).numpy()


def _exported(path: str) -> Any:
    """Return the module of an exported graph, without unpickling objects.

    torch.export.load unpickles constants of the kind `OPAQUE`, which a soup's graph does not have,
    and tensors that it cannot read with ``weights_only``; the variable makes it refuse the latter.
    """
    with Path(path).open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        if content.find(OPAQUE) >= 0:
            raise ValueError(f"{path} has objects beside tensors: it is not the graph of a soup.")
    before = os.environ.get(FORCED)
    os.environ[FORCED] = "1"
    try:
        return torch.export.load(path).module()
    finally:
        if before is None:
            del os.environ[FORCED]
        else:
            os.environ[FORCED] = before


set_model(Soup())
