"""OpenVINO's intermediate representation (IR), converted from the ONNX graph."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.export.formats import onnx
from pipeline.export.formats.base import Runner, Source
from pipeline.optional_imports import extra

LABEL = "OpenVINO"
FILE = "openvino_model.xml"
EXACT = True
USAGE = """\
import openvino
model = openvino.Core().compile_model("openvino_model.xml", "CPU")
probabilities = model(images)[0]"""


def write(source: Source, folder: Path) -> None:
    """Write the graph (.xml) and its float32 weights (.bin)."""
    library = _openvino()
    with onnx.graph(source, folder) as graph:
        model = library.Core().read_model(str(graph))
        library.save_model(model, str(folder / FILE), compress_to_fp16=False)


def load(folder: Path, threads: int) -> Runner:
    """Return the compiled graph on the CPU, which computes in float32."""
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
    }
    compiled = _openvino().Core().compile_model(str(folder / FILE), "CPU", settings)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(compiled(images.contiguous().numpy())[0].copy())

    return run


def _openvino() -> Any:
    """Return the library without its usage statistics, which it sends when it is imported."""
    if "openvino" not in sys.modules:
        # Its import of the sender then fails, and it takes a stub.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    return extra("openvino", "export")
