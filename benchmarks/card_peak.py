"""The card, its measured rate of bf16 matrix products, and the networks' work, as one JSON line."""

import json
import os
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.bundle import origin
from pipeline.models.build import build

NETWORKS = ("resnet18", "resnet20", "wrn20")


def peak(size: int, products: int) -> float:
    """Return TFLOP/s of ``products`` bf16 products of random squares: 2 size³ operations each."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    _wait()
    begun = time.perf_counter()
    for _ in range(products):
        left @ right
    _wait()
    return products * 2 * size**3 / (time.perf_counter() - begun) / 1e12


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def flops(network: str) -> float:
    """Return the operations of training on one 32-pixel image: three times those forward."""
    with FlopCounterMode(display=False) as counter:
        build(network, 10, 3)(torch.zeros(2, 3, 32, 32))
    return 3 * counter.get_total_flops() / 2


def main() -> None:
    """Print what first.py writes beside its figures."""
    size, products = (8192, 50) if torch.cuda.is_available() else (512, 3)
    machine = origin.machine()
    bundle = json.loads(Path(os.environ["SMS_BUNDLE"], "bundle.json").read_text())
    facts = {"card": machine["card"], "torch": machine["torch"]}
    facts |= {key: bundle[key] for key in ("commit", "golden")}
    rate = {"size": size, "tflops": round(peak(size, products), 1)}
    print(json.dumps({**facts, "peak": rate, "flops": {name: flops(name) for name in NETWORKS}}))


if __name__ == "__main__":
    main()
