"""Time of a training step on a GPU by kind of kernel.

    python -m benchmarks.step_time --network resnet18

The steps are those of benchmarks/loop.py, launched one by one and traced. The time between kernels
is not counted: a captured step has hardly any. Neither are the transfers from and to pageable
memory, with which a training begins and ends.
"""

import argparse
import json
import re
from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.ways import prepare

# Kind of the first pattern that a kernel's name contains.
KINDS = (
    ("optimiser, masks", r"multi_tensor|foreach"),
    ("batch norm", r"batch_norm|batchnorm|bn_|_bn|norm_fwd|norm_bwd"),
    ("layout", r"nchw_?to_?nhwc|nhwc_?to_?nchw|transpose"),
    ("convolution", r"conv|gemm|xmma|cutlass|cudnn|sm[89]0|wgrad|dgrad|fprop|nvjet"),
    ("pooling", r"pool"),
    ("copy, cast", r"copy|memcpy|memset|fill"),
    ("augmentation", r"gather|index|remainder"),
    ("reduction, loss", r"reduce|softmax|nll|argmax|scan"),
    ("element by element", r"elementwise|triton|threshold"),
)


def kind(kernel: str) -> str:
    """Return the kind of the kernel with this name."""
    return next((name for name, parts in KINDS if re.search(parts, kernel.lower())), "other")


def main() -> None:
    """Print the times, and the same as a JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--way", default="eager", help="of benchmarks/loop.py, ours")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=20, help="steps that are traced, twice")
    options = parser.parse_args()
    run = prepare(options.way, options)
    run(lambda: None)  # warm up
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as trace:
        run(lambda: None)
    steps = 2 * options.batches  # two epochs, see benchmarks/ways.py
    kernels: Counter[str] = Counter()
    for event in trace.events():
        on_gpu = event.device_type == torch.autograd.DeviceType.CUDA
        span = event.is_user_annotation  # of kernels that are counted one by one
        if on_gpu and not span and "Pageable" not in event.name:
            kernels[event.name] += event.time_range.elapsed_us() / steps
    kinds: Counter[str] = Counter()
    for name, microseconds in kernels.items():
        kinds[kind(name)] += microseconds
    whole = sum(kinds.values()) or 1.0
    for name, microseconds in kinds.most_common():
        print(f"  {name:20} {microseconds:8.0f} us  {microseconds / whole:6.1%}")
    for name, microseconds in kernels.most_common(40):
        print(f"    {microseconds:7.1f} us  {kind(name):18} {name[:110]}")
    print(json.dumps({name: round(value, 1) for name, value in kinds.most_common()}))


if __name__ == "__main__":
    main()
