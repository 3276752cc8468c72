"""Sparse inference: the compiled network of pipeline.inference, which skips pruned weights."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline import inference
from pipeline.errors import UserError
from pipeline.export.formats.base import Runner, Source
from pipeline.export.served import Served
from pipeline.inference.library import required_library

LABEL = "pipeline.inference"
FILE = "model_inference.safetensors"
EXACT = True
USAGE = """\
import torch
from pathlib import Path
from pipeline import inference  # of this project: sparse-model-soups
model = inference.load(Path("model_inference.safetensors"))
probabilities = model(torch.from_numpy(images).float()).softmax(1)"""


def write(source: Source, folder: Path) -> None:
    """Compile the network with its normalisation, and write the kept weights and operations.

    Raises:
        UserError: torch.fx cannot trace the network, it has operations without a kernel, or this
            machine has no C compiler for the measurement of its latency.
    """
    required_library()
    try:
        save(source.served, source.examples, folder / FILE)
    except UserError as error:
        raise UserError(
            f"{source.checkpoint.meta['network']} cannot be exported for pipeline.inference "
            f"({error}): leave sparse out of export."
        ) from error


def save(served: Served, examples: Tensor, file: Path) -> None:
    """Write a classifier that maps images, float32 from 0 to 255, to logits.

    Raises:
        UserError: torch.fx cannot trace it, or it has operations without a kernel.
    """
    network = nn.Sequential(_normalisation(served.mean, served.std), served.model).eval()
    inference.save(inference.compile(network, examples.shape[1:]), file)


def load(folder: Path, threads: int) -> Runner:
    """Return the compiled network followed by softmax."""
    network = inference.load(folder / FILE, threads)

    def run(images: Tensor) -> Tensor:
        probabilities: Tensor = network(images.float()).softmax(1)
        return probabilities

    return run


def _normalisation(mean: Tensor, std: Tensor) -> nn.BatchNorm2d:
    """Return (x / 255 - mean) / std, a BatchNorm with the statistics 255 mean and (255 std)^2."""
    layer = nn.BatchNorm2d(mean.numel(), eps=0.0, affine=False)
    layer.running_mean = 255 * mean.flatten()
    layer.running_var = torch.square(255 * std.flatten())
    return layer
