"""The training loop against the obvious PyTorch way, in one interleaved run.

    python -m benchmarks.loop                  one thread each, ResNet-8
    python -m benchmarks.loop --workers 2      two processes of ours, theirs with two threads
    python -m benchmarks.loop --device cuda --network resnet18 --batches 100 --loader-workers 4

Both retrain the same 90 %-sparse network on the same CIFAR-shaped images with crop and flip, SGD,
Nesterov momentum and weight decay. The obvious way is torchvision's PIL transforms, a DataLoader,
`torch.nn.utils.prune` and metrics read every step. Runs alternate (theirs, ours, theirs, ours...)
so that a busy neighbour slows both; printed are medians over the rounds, and the ratio's spread.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import prune
from torchvision import transforms

from pipeline.data.base import Dataset, Split
from pipeline.models.build import build
from pipeline.train.augment import Augmentation
from pipeline.train.loop import Settings, train

RATE, MOMENTUM, DECAY, SPARSITY = 0.05, 0.9, 5e-4, 0.9
Run = Callable[[], float]  # trains for --batches steps and returns the seconds it took


class Images(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A data set as tutorials write it: PIL images and a transform an image."""

    def __init__(self, split: Split, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images = split.images.permute(0, 2, 3, 1).numpy()
        self.labels = split.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def obvious(
    model: nn.Module, masks: dict[str, Tensor], data: Dataset, options: argparse.Namespace
) -> Run:
    """Return the obvious way to retrain ``model`` under ``masks``."""
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(data.mean.tolist(), data.std.tolist()),
        ]
    )
    loader = torch.utils.data.DataLoader(
        Images(data.train, transform),
        options.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=options.loader_workers,
        persistent_workers=options.loader_workers > 0,
    )
    for name, mask in masks.items():
        module, _, parameter = name.rpartition(".")
        prune.custom_from_mask(model.get_submodule(module), parameter, mask)
    model.to(options.device).train()
    optimiser = torch.optim.SGD(
        model.parameters(), RATE, MOMENTUM, weight_decay=DECAY, nesterov=True
    )
    criterion = nn.CrossEntropyLoss()

    def run() -> float:
        start = time.perf_counter()
        loss_sum, correct = 0.0, 0
        for inputs, targets in loader:
            images, labels = inputs.to(options.device), targets.to(options.device)
            optimiser.zero_grad()
            outputs = model(images)
            loss = criterion(outputs, labels)
            loss.backward()
            optimiser.step()
            loss_sum += loss.item() * len(labels)
            correct += (outputs.argmax(1) == labels).sum().item()
        return time.perf_counter() - start

    return run


def ours(
    model: nn.Module, masks: dict[str, Tensor], data: Dataset, options: argparse.Namespace
) -> Run:
    """Return our way to retrain ``model`` under ``masks``."""
    settings = Settings(
        options.batch_size,
        DECAY,
        MOMENTUM,
        augmentation=Augmentation(4, flip=True),
        precision=options.precision,
        compile=options.compile,
    )
    rates = [RATE] * options.batches

    def run() -> float:
        start = time.perf_counter()
        train(model, data, settings, rates, seed=0, masks=masks, device=options.device)
        return time.perf_counter() - start

    return run


def prepare(way: str, options: argparse.Namespace) -> Run:
    """Return the named way, on a network, masks and images that are the same for both."""
    generator = torch.Generator().manual_seed(0)
    count = options.batches * options.batch_size
    images = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.randint(10, (count,), generator=generator))
    few = Split(split.images[:1], split.labels[:1])
    classes = tuple(str(label) for label in range(10))
    data = Dataset(split, few, few, classes, torch.full((3,), 0.5), torch.full((3,), 0.3), {})
    torch.manual_seed(0)
    model = build(options.network, 10, 3)
    masks = {
        name: torch.rand(parameter.shape, generator=generator) >= SPARSITY
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1
    }
    return {"obvious": obvious, "ours": ours}[way](model, masks, data, options)


def worker(way: str, threads: int, options: argparse.Namespace, pipe: Connection) -> None:
    """Answer each message with the seconds of one run, silently, until the pipe closes."""
    torch.set_num_threads(threads)
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  (for the life of the process)
    run = prepare(way, options)
    run()  # warm up
    pipe.send("ready")
    with suppress(EOFError):
        while pipe.recv():
            pipe.send(run())


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
        for pipe in self.pipes:
            pipe.recv()
        self.images = size * options.batches * options.batch_size

    def throughput(self) -> float:
        """Return the images a second of all processes together, in one run started at once."""
        for pipe in self.pipes:
            pipe.send(True)
        return self.images / max(pipe.recv() for pipe in self.pipes)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet8")
    parser.add_argument("--workers", type=int, default=1, help="processes of ours, a thread each")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=10, help="steps a run")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--loader-workers", type=int, default=0, help="of the obvious way")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"], help="of ours")
    parser.add_argument("--compile", action="store_true", help="ours")
    options = parser.parse_args()
    # Without it, idle threads spin, and one busy neighbour slows the obvious way fivefold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    teams = {
        f"obvious: 1 process, {options.workers} threads": Team(
            "obvious", 1, options.workers, options
        ),
        f"ours: {options.workers} processes, 1 thread": Team("ours", options.workers, 1, options),
    }
    rounds = [[team.throughput() for team in teams.values()] for _ in range(options.rounds)]
    print(hardware(options.device))
    print(f"{options.network}, batches of {options.batch_size}, {options.rounds} rounds")
    for name, values in zip(teams, zip(*rounds, strict=True), strict=True):
        print(f"  {name:32} {statistics.median(values):8.0f} images/s")
    ratios = sorted(our / their for their, our in rounds)
    print(f"  ratio {statistics.median(ratios):.2f}  (from {ratios[0]:.2f} to {ratios[-1]:.2f})")


def hardware(device: str) -> str:
    """Name the processor that did the work."""
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
