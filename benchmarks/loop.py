"""The training loop against the obvious PyTorch way, in one interleaved run.

    python -m benchmarks.loop                  one thread each, ResNet-8
    python -m benchmarks.loop --workers 2      two processes of ours, theirs with two threads
    python -m benchmarks.loop --device cuda --precision bf16 --loader-workers 14 \
        --network resnet18 --ways obvious eager graph graph+compile graph+fast --batches 350
    python -m benchmarks.loop --device cuda --precision bf16 \
        --network resnet20 --ways graph --batches 350 --jobs 1 2 3 4

All retrain the same 90 %-sparse network on the same CIFAR-shaped images with crop and flip, SGD,
Nesterov momentum and weight decay. The obvious way is torchvision's PIL transforms, a DataLoader,
`torch.nn.utils.prune` and metrics read every step. Ours are the loop, its steps called (`eager`) or
replayed as CUDA graphs (`graph`, the default; on a CPU the same), each also with torch.compile and
with a GPU's fastest kernels in place of deterministic ones (`+compile`, `+fast`). Runs alternate
so that a busy neighbour slows all; a line is printed after each, and medians over the rounds at
the end. On a GPU a round is an epoch of a training that was captured before.
"""

import argparse
import os
import platform
import statistics
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ways import worker
from pipeline.models.build import build


class Team:
    """Processes that each run one way, together."""

    def __init__(self, way: str, size: int, threads: int, options: argparse.Namespace) -> None:
        context = get_context("spawn")
        self.pipes = []
        for _ in range(size):
            here, there = context.Pipe()
            context.Process(target=worker, args=(way, threads, options, there)).start()
            there.close()
            self.pipes.append(here)
        self.way, self.images = way, options.batches * options.batch_size

    def wait(self) -> None:
        """Wait until all are warm, and say how long that took and what they noted."""
        try:
            ready = [pipe.recv() for pipe in self.pipes]
        except EOFError:
            say(f"  {self.way} failed")
            return
        notes = {note for _, several in ready for note in several}
        say(f"  {self.way}: warm after {max(seconds for seconds, _ in ready):.1f} s", *notes)

    def throughput(self, count: int | None = None) -> float:
        """Return the images a second of ``count`` processes that start one run each at once."""
        pipes = self.pipes[:count]
        try:
            for pipe in pipes:
                pipe.send(True)
            for pipe in pipes:
                pipe.recv()  # ready
            for pipe in pipes:
                pipe.send(True)
            return len(pipes) * self.images / max(pipe.recv() for pipe in pipes)
        except (EOFError, BrokenPipeError):
            return float("nan")

    def close(self) -> None:
        """Let the processes end."""
        for pipe in self.pipes:
            pipe.close()


def say(*words: Any) -> None:
    """Print at once: a run that is cut off leaves its figures."""
    print(*words, flush=True)


def flops(network: str) -> float:
    """Return the floating point operations of a training step, per image; a MAC counts as two."""
    with torch.device("meta"):
        model, images = build(network, 10, 3), torch.empty(2, 3, 32, 32)
        with FlopCounterMode(display=False) as counter:
            model(images).sum().backward()
    return counter.get_total_flops() / 2


def peak(size: int = 8192, repeats: int = 20) -> float:
    """Return the FLOP/s of the GPU's bf16 matrix product of random square matrices."""
    left, right = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(3 + repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        left @ right
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return 2 * size**3 / statistics.median(times[3:])


def compare(options: argparse.Namespace, best: float | None) -> None:
    """Measure and print the ways of one network; ``best`` is the GPU's peak in FLOP/s."""
    say(f"{options.network}, {options.precision}, batches of {options.batch_size}")
    teams = []
    for way in options.ways:
        size, threads = (1, options.workers) if way == "obvious" else (options.workers, 1)
        teams.append(Team(way, size, threads, options))
    for team in teams:
        team.wait()
    rounds = []
    for number in range(1, options.rounds + 1):
        rounds.append([team.throughput() for team in teams])
        values = "  ".join(f"{team.way} {v:.0f}" for team, v in zip(teams, rounds[-1], strict=True))
        say(f"  round {number}: {values}")
    for team in teams:
        team.close()
    each = flops(options.network)
    for index, way in enumerate(options.ways):
        values = [one[index] for one in rounds]
        ratios = sorted(one[index] / one[0] for one in rounds)
        rate = statistics.median(values)
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        used = f"  {rate * each / 1e12:.1f} TFLOP/s"
        share = f"  {rate * each / best:.1%} of the peak" if best else ""
        say(f"  {way:16} {rate:8.0f} images/s  ratio {spread}{used}{share}")


def beside(options: argparse.Namespace) -> None:
    """Measure and print several processes of the last way at once, on one GPU."""
    way, most = options.ways[-1], max(options.jobs)
    team = Team(way, most, 1, options)
    team.wait()
    first = None
    for count in options.jobs:
        rates = [team.throughput(count) for _ in range(options.rounds)]
        rate = statistics.median(rates)
        first = first or rate
        say(
            f"  {options.network} {way}, {count} at once: {rate:8.0f} images/s, {rate / first:.2f}x"
        )
    team.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet8")
    parser.add_argument("--ways", nargs="+", default=["obvious", "graph"])
    parser.add_argument("--workers", type=int, default=1, help="processes of ours, a thread each")
    parser.add_argument("--jobs", type=int, nargs="+", help="how many at once on one GPU, instead")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=10, help="steps a run")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--loader-workers", type=int, default=0, help="of the obvious way")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="all of ours")
    options = parser.parse_args(arguments)
    if options.compile:
        options.ways = [way if way == "obvious" else f"{way}+compile" for way in options.ways]
    # Without it, idle threads spin, and one busy neighbour slows the obvious way fivefold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    say(hardware(options.device))
    best = peak() if options.device == "cuda" else None
    if best:
        say(f"bf16 matrix product: {best / 1e12:.0f} TFLOP/s")
    if options.jobs:
        beside(options)
    else:
        compare(options, best)


def hardware(device: str) -> str:
    """Name the processor that does the work."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    information = Path("/proc/cpuinfo")
    names = information.read_text().splitlines() if information.exists() else []
    models = [line.split(": ")[1] for line in names if line.startswith("model name")]
    name = models[0] if models else platform.processor()
    load = f"load {os.getloadavg()[0]:.1f}"
    return f"{name}, {os.cpu_count()} cores ({load}), torch {torch.__version__}"


if __name__ == "__main__":
    main()
