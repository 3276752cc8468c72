"""Exports a network with its normalisation and output as one graph, and logs it in MLflow."""

import tempfile
from contextlib import suppress
from pathlib import Path

import mlflow
import torch
from mlflow.models import infer_signature

from pipeline.data.base import load as load_data
from pipeline.errors import UserError
from pipeline.export.formats import sparse
from pipeline.export.served import served, traced
from pipeline.storage.atomic_files import read_json

SERVED = Path(__file__).with_name("pyfunc_model.py")


def log_model(run_id: str, name: str, model: Path, data: Path) -> str:
    """Log the soup in the folder ``model`` in a run; return its version of the model ``name``.

    ``model`` is a model's folder, or that of the stage shrink with the network without its pruned
    filters. It is stored as a torch.export graph, which loads without this project and without
    unpickling, and where possible for `pipeline.inference` too, which skips pruned weights.
    """
    module, meta = served(model, data), read_json(data / "meta.json")
    examples = load_data(data).test.images[:4]
    with torch.inference_mode():
        outputs = module(examples)
    signature = infer_signature(examples.numpy(), outputs.numpy())
    program = traced(module, examples)
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run(run_id=run_id):
        graph = Path(folder) / "soup.pt2"
        torch.export.save(program, graph)
        artifacts = {"soup": str(graph)}
        if meta["task"] == "classification":
            with suppress(UserError):  # it has operations that only PyTorch can run
                sparse.save(module, examples, Path(folder) / sparse.FILE)
                artifacts["sparse"] = str(Path(folder) / sparse.FILE)
        info = mlflow.pyfunc.log_model(
            name="soup",
            python_model=str(SERVED),
            artifacts=artifacts,
            model_config={"runtime": "torch"},
            signature=signature,
            input_example=examples.numpy(),
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", "numpy"],
            metadata={"classes": meta["classes"]},
            registered_model_name=name,
        )
    return str(info.registered_model_version)
