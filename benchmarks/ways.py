"""The ways to retrain a network that benchmarks/loop.py compares, each in a process of its own."""

import argparse
import io
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import prune
from torchvision import transforms

from pipeline.data.base import Dataset, Split
from pipeline.models.build import build
from pipeline.train.loop import Hook, Settings, train
from pipeline.train.settings import Augmentation

RATE, MOMENTUM, DECAY, SPARSITY = 0.05, 0.9, 5e-4, 0.9
Ready = Callable[[], None]  # is called when the time begins, and returns when all are ready
Run = Callable[[Ready], float]  # trains for --batches steps and returns the seconds it took


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
        multiprocessing_context="fork" if options.loader_workers else None,  # as in a script
    )
    for name, mask in masks.items():
        module, _, parameter = name.rpartition(".")
        prune.custom_from_mask(model.get_submodule(module), parameter, mask)
    model.to(options.device).train()
    optimiser = torch.optim.SGD(
        model.parameters(), RATE, MOMENTUM, weight_decay=DECAY, nesterov=True
    )
    criterion = nn.CrossEntropyLoss()
    low = torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16")

    def run(ready: Ready) -> float:
        ready()
        start = time.perf_counter()
        loss_sum, correct = 0.0, 0
        for inputs, targets in loader:
            images, labels = inputs.to(options.device), targets.to(options.device)
            optimiser.zero_grad()
            with low:
                outputs = model(images)
                loss = criterion(outputs, labels)
            loss.backward()
            optimiser.step()
            loss_sum += loss.item() * len(labels)
            correct += (outputs.argmax(1) == labels).sum().item()
        return time.perf_counter() - start

    return run


class Clock(Hook):
    """Times the second epoch of two: steps are captured by then."""

    def __init__(self, ready: Ready) -> None:
        self.ready, self.start, self.seconds = ready, 0.0, 0.0

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:  # noqa: ARG002
        """Wait for the GPU, and look at the clock."""
        torch.cuda.synchronize()
        if epoch == 1:
            self.ready()
            self.start = time.perf_counter()
        self.seconds = time.perf_counter() - self.start


def ours(
    way: str,
    model: nn.Module,
    masks: dict[str, Tensor],
    data: Dataset,
    options: argparse.Namespace,
) -> Run:
    """Return our way ``way`` to retrain ``model`` under ``masks``."""
    base, *extras = way.split("+")
    settings = Settings(
        options.batch_size,
        DECAY,
        MOMENTUM,
        augmentation=Augmentation(4, flip=True),
        precision=options.precision,
        compile="compile" in extras,
        deterministic="fast" not in extras,
        graph=base == "graph",
    )
    rates = [RATE] * options.batches

    def whole(ready: Ready) -> float:
        ready()
        start = time.perf_counter()
        train(model, data, settings, rates, seed=0, masks=masks)
        return time.perf_counter() - start

    def epoch(ready: Ready) -> float:
        clock = Clock(ready)
        train(model, data, settings, rates * 2, seed=0, masks=masks, hooks=[clock], device="cuda")
        return clock.seconds

    return epoch if options.device == "cuda" else whole


def prepare(way: str, options: argparse.Namespace) -> Run:
    """Return the named way, on a network, masks and images that are the same for all."""
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
    if way == "obvious":
        return obvious(model, masks, data, options)
    return ours(way, model, masks, data, options)


def worker(way: str, threads: int, options: argparse.Namespace, pipe: Connection) -> None:
    """Run once a message, silently: say when ready, wait for the word, say the seconds it took."""
    torch.set_num_threads(threads)
    sys.stdout = said = io.StringIO()  # for the life of the process
    start = time.perf_counter()
    run = prepare(way, options)
    run(lambda: None)  # warm up
    notes = [line for line in said.getvalue().splitlines() if "one by one" in line]
    pipe.send((time.perf_counter() - start, notes))

    def ready() -> None:
        pipe.send("ready")
        pipe.recv()

    try:
        while pipe.recv():
            pipe.send(run(ready))
    except EOFError:
        return
