"""ONNX in 8 bits: static quantisation, calibrated on training images."""

import tempfile
from pathlib import Path

from torch import Tensor

from pipeline.export.formats import onnx
from pipeline.export.formats.base import Runner, Source
from pipeline.optional_imports import extra

LABEL = "ONNX Runtime, int8"
FILE = "model_int8.onnx"
EXACT = False
USAGE = onnx.USAGE.replace(onnx.FILE, FILE)
BATCH = 32
OPERATORS = ["Conv", "Gemm", "MatMul", "Add", "Relu", "Concat", "MaxPool", "AveragePool"]


def write(source: Source, folder: Path) -> None:
    """Write the quantised graph: a scale for each output channel of each weight.

    With q(x) = round(x / scale) + zero, an activation is uint8, with the range that it has on the
    calibration images, and a weight is int8 of 7 bits, whose products do not saturate on CPUs
    without VNNI. Normalisation and softmax stay float32.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", Section 2; ONNX Runtime's guide for CPUs.
    """
    quantization = extra("onnxruntime.quantization", "export")
    prepare = extra("onnxruntime.quantization.shape_inference", "export").quant_pre_process
    with onnx.graph(source, folder) as graph, tempfile.TemporaryDirectory() as temporary:
        prepared = Path(temporary, onnx.FILE)
        prepare(str(graph), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(folder / FILE),
            _Batches(source.calibration),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=OPERATORS,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


def load(folder: Path, threads: int) -> Runner:
    """Return a session of ONNX Runtime on the CPU."""
    return onnx.session(folder / FILE, threads)


class _Batches:
    """ONNX Runtime's reader of calibration data, by its protocol."""

    def __init__(self, images: Tensor) -> None:
        starts = range(0, len(images), BATCH)
        self.batches = (images[start : start + BATCH] for start in starts)

    def get_next(self) -> dict[str, object] | None:
        """Return the inputs of the next batch, or None after the last."""
        batch = next(self.batches, None)
        return None if batch is None else {onnx.INPUT: batch.numpy()}
