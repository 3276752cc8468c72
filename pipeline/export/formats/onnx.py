"""ONNX, for any batch size, with normalisation and output in the graph."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.export.formats.base import Runner, Source
from pipeline.export.served import any_batch, first_line
from pipeline.optional_imports import extra

LABEL = "ONNX Runtime"
FILE = "model.onnx"
EXACT = True
INPUT, OUTPUT = "images", "probabilities"
OPSET = 23  # the version of the operators: the newest that torch.onnx writes
ONE_FILE = 1_500_000_000  # bytes of weights; larger ones have a file of their own (protobuf: 2 GB)
USAGE = """\
import onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
probabilities = session.run(None, {"images": images})[0]"""


def write(source: Source, folder: Path) -> None:
    """Write the graph in the operators of version `OPSET`.

    Raises:
        UserError: PyTorch cannot export the network.
    """
    extra("onnxscript", "export")
    size = sum(tensor.nbytes for tensor in source.served.state_dict().values())
    try:
        torch.onnx.export(
            source.served,
            (source.examples,),
            folder / FILE,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=any_batch(),
            external_data=size > ONE_FILE,
            verbose=False,
        )
    except Exception as error:
        raise UserError(
            f"{source.checkpoint.meta['network']} cannot be exported to ONNX "
            f"({first_line(error)}): leave onnx, int8 and openvino out of export."
        ) from error


def load(folder: Path, threads: int) -> Runner:
    """Return a session of ONNX Runtime on the CPU."""
    return session(folder / FILE, threads)


def session(file: Path, threads: int) -> Runner:
    """Return the function of an ONNX ``file`` on the CPU."""
    runtime = extra("onnxruntime", "export")
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    providers = ["CPUExecutionProvider"]
    loaded = runtime.InferenceSession(str(file), settings, providers=providers)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(loaded.run(None, {INPUT: images.contiguous().numpy()})[0])

    return run


@contextmanager
def graph(source: Source, folder: Path) -> Iterator[Path]:
    """Yield the ONNX file of ``source``, that in ``folder`` or else a temporary one."""
    if (folder / FILE).exists():
        yield folder / FILE
        return
    with tempfile.TemporaryDirectory() as temporary:
        write(source, Path(temporary))
        yield Path(temporary, FILE)
