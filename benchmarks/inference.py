"""Compiled sparse networks against PyTorch, ONNX Runtime and OpenVINO, in one interleaved run.

    python -m benchmarks.inference IMAGES               # prints the times of one and two threads
    python -m benchmarks.inference IMAGES --out docs/data/inference.csv

IMAGES is a folder of CIFAR-10 as image files (train/CLASS, test/CLASS); it is read when the soups
in ``--soups`` do not exist yet (benchmarks/inference_soups.py). Contenders take turns, so that load
on the machine affects all alike; the time of a pass is the median over the rounds, beside it the
fastest. All compute in float32: OpenVINO is told so, because its default on a CPU with bfloat16
units is bfloat16, which is a line of its own. Contenders whose package is missing are left out.
Outputs are compared with PyTorch's. The limits are multiply-accumulates, the bytes of input vectors
that the kernel loads (4 a multiply-accumulate), and the rate of the dense kernel.
"""

import argparse
import copy
import csv
import datetime
import io
import statistics
import warnings
from collections.abc import Callable
from importlib import metadata
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.inference_soups import soups
from pipeline import inference
from pipeline.channels.products import macs
from pipeline.inference.costs import Layer
from pipeline.inference.library import library
from pipeline.inference.measure import measure as kernel_microseconds

Contender = Callable[[], Any]
FIELDS = ("network", "batch", "threads", "contender", "ms", "fastest_ms", "difference", "gmacs")
SHAPE = (3, 32, 32)
WHERE = ("cpu", "isa", "torch", "onnxruntime", "openvino", "date")


def contenders(model: nn.Module, images: Tensor, threads: int) -> dict[str, Contender]:
    """Return a pass over ``images`` by name; each is called once, so that it is compiled."""
    lasting = images.contiguous(memory_format=torch.channels_last)
    channels_last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    torch._dynamo.reset()
    compiled = torch.compile(channels_last)
    ours = inference.compile(model, images.shape[1:], threads)
    made = {
        "torch": lambda: model(images),
        "torch, channels_last": lambda: channels_last(lasting),
        "torch.compile": lambda: compiled(lasting),
        **exported(model, images, threads),
        "this project": lambda: ours(images),
    }
    for run in made.values():
        run()
    return made


def exported(model: nn.Module, images: Tensor, threads: int) -> dict[str, Contender]:
    """Return ONNX Runtime and OpenVINO, where they are installed."""
    made: dict[str, Contender] = {}
    array, file = images.numpy(), io.BytesIO()
    try:
        import onnxruntime  # noqa: PLC0415

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (images,), dynamo=True, verbose=False).save(file)
    except ImportError:
        print("without ONNX Runtime and OpenVINO: install the extras", flush=True)
        return made
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    made["ONNX Runtime"] = lambda: session.run(None, {name: array})[0]
    try:
        import openvino  # noqa: PLC0415
    except ImportError:
        return made
    core = openvino.Core()
    for title, precision in (("OpenVINO", "f32"), ("OpenVINO, bfloat16", "bf16")):
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
        network = core.compile_model(core.read_model(io.BytesIO(file.getvalue())), "CPU", settings)
        made[title] = lambda network=network: next(iter(network([array]).values()))
    return made


def timed(made: dict[str, Contender], rounds: int, passes: int) -> dict[str, list[float]]:
    """Return the seconds of each pass; in a round each contender does ``passes`` in turn."""
    times: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, run in made.items():
            for _ in range(passes):
                start = perf_counter()
                run()
                times[name].append(perf_counter() - start)
    return times


def sparse_macs(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the multiply-accumulates of an image that read a weight that is not zero."""
    kept = {
        name.removesuffix(".weight"): float((weight != 0).double().mean())
        for name, weight in model.named_parameters()
    }
    dense = macs(model, torch.zeros(1, *shape))
    return sum(count * kept[name] for name, count in dense.items())


def peak() -> float:
    """Return the multiply-accumulates a second of the dense kernel, 64 channels of 32 x 32."""
    layer = Layer(3, 1, 64, 64, 32, 32)
    return layer.macs / kernel_microseconds(layer, None, 0.5) * 1e6


def measure(networks: dict[str, nn.Module], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of the table."""
    rows = []
    for threads, batch in product(options.threads, options.batches):
        torch.set_num_threads(threads)
        print(f"{threads} threads; dense kernel {peak() / 1e9:.0f} GMAC/s a thread", flush=True)
        for title, model in networks.items():
            products = sparse_macs(model, SHAPE)
            print(
                f"{title}, batch {batch}: {products / 1e6:.1f} MMAC an image, "
                f"{4 * products / 1e6:.0f} MB of input vectors",
                flush=True,
            )
            with torch.inference_mode():
                rows += compare((title, products), model, batch, threads, options.rounds)
    return rows


def compare(
    network: tuple[str, float], model: nn.Module, batch: int, threads: int, rounds: int
) -> list[dict[str, Any]]:
    """Return and print a row for each contender; ``network`` has its name and products."""
    title, products = network
    images = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(0))
    expected = model(images).numpy()
    made = contenders(model, images, threads)
    rows = []
    for name, passes in timed(made, rounds, 1 if batch > 1 else 10).items():
        seconds = statistics.median(passes)
        gap = np.abs(np.asarray(made[name]()) - expected).max() / np.abs(expected).max()
        row = {"network": title, "batch": batch, "threads": threads, "contender": name}
        row["ms"], row["fastest_ms"] = (
            f"{1000 * value / batch:.3g}" for value in (seconds, min(passes))
        )
        row["difference"] = f"{gap:.1e}"
        row["gmacs"] = f"{products * batch / seconds / 1e9:.1f}"
        rows.append(row)
        print(f"  {name:22}", *(f"{field} {row[field]}" for field in FIELDS[4:]), flush=True)
    return rows


def where() -> dict[str, str]:
    """Return the machine, versions and date."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    kernels = library()
    return {
        "cpu": next((x.partition(": ")[2] for x in lines if x.startswith("model name")), ""),
        "isa": "none" if kernels is None else kernels.isa,
        "torch": torch.__version__,
        "onnxruntime": version("onnxruntime"),
        "openvino": version("openvino"),
        "date": datetime.date.today().isoformat(),
    }


def version(package: str) -> str:
    """Return the version of an installed package, or ""."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--soups", type=Path, default=Path("artifacts/inference"))
    parser.add_argument("--networks", nargs="+", help="of the soups, as '90 %% uniform'")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 1])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="CSV file; rows of other settings stay in it")
    options = parser.parse_args()
    networks = soups(options.soups, options.images)
    networks = {name: networks[name] for name in options.networks or networks}
    rows = [row | where() for row in measure(networks, options)]
    if options.out:
        write(options.out, rows)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write ``rows``; rows of the file with the same settings are replaced."""
    stored = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            stored = list(csv.DictReader(file))
    merged = {tuple(str(row[field]) for field in FIELDS[:4]): row for row in [*stored, *rows]}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, (*FIELDS, *WHERE), lineterminator="\n")
        writer.writeheader()
        writer.writerows(merged.values())


if __name__ == "__main__":
    main()
