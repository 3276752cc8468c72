"""Sparse soups of ResNet-18 for benchmarks/inference.py, trained once and kept in artifacts/.

A dense network is trained for two epochs on 5,000 images of CIFAR-10 and pruned by magnitude to
each sparsity. Two copies are retrained for a quarter of an epoch under that mask and averaged, and
BatchNorm statistics are re-estimated. Accuracy is low after so little training; the masks are those
of trained weights.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.averaging import mean
from pipeline.data.image_folder import read
from pipeline.models.build import build
from pipeline.prune.apply import prune
from pipeline.prune.prunable import prunable
from pipeline.storage import checkpoint
from pipeline.train.batchnorm import reestimate

IMAGES, EPOCHS, BATCH, RATE = 5000, 2, 64, 0.05
SOUPS = (("uniform", 0.9), ("uniform", 0.95), ("uniform", 0.98), ("global", 0.98))
CENTRE, SPREAD = (torch.full((3,), value) for value in (0.47, 0.25))


def name(allocation: str, sparsity: float) -> str:
    """Return the name of a soup."""
    return f"{100 * sparsity:g} % {allocation}"


def soups(folder: Path, data: Path) -> dict[str, nn.Module]:
    """Return the networks by name, in evaluation mode; "dense" is the one before pruning."""
    raw = None
    dense = build("resnet18", 10)
    networks = {"dense": dense}
    for key in ("dense", *SOUPS):
        title = key if isinstance(key, str) else name(*key)
        path = folder / f"{title.replace(' ', '')}.safetensors"
        if not path.exists():
            raw = raw or read(data, 32).train
            rows = torch.randperm(len(raw), generator=torch.Generator().manual_seed(0))[:IMAGES]
            images, labels = raw.images[rows], raw.labels[rows]
            point = _trained(images, labels) if isinstance(key, str) else None
            checkpoint.save(path, point or _soup(dense, *key, images, labels))
        model = build("resnet18", 10)
        model.load_state_dict(dict(checkpoint.load(path).state))
        networks[title] = model.eval()
        dense = networks["dense"]
    return networks


def _trained(images: Tensor, labels: Tensor) -> checkpoint.Checkpoint:
    torch.manual_seed(0)
    model = build("resnet18", 10)
    _train(model, images, labels, EPOCHS * len(images) // BATCH, {}, 0)
    reestimate(model, images, CENTRE, SPREAD)
    return checkpoint.Checkpoint(model.state_dict(), {}, {})


def _soup(
    dense: nn.Module, allocation: str, sparsity: float, images: Tensor, labels: Tensor
) -> checkpoint.Checkpoint:
    parent = checkpoint.Checkpoint(dense.state_dict(), {}, {})
    parameters = [key for key, _ in dense.named_parameters()]
    pruned, _ = prune(
        parent, prunable(dense), sparsity, allocation=allocation, parameters=parameters
    )
    candidates = []
    for seed in range(2):
        model = copy.deepcopy(dense)
        model.load_state_dict(dict(pruned.state))
        _train(model, images, labels, len(images) // BATCH // 4, pruned.masks, seed)
        candidates.append(model.state_dict())
    soup = copy.deepcopy(dense)
    soup.load_state_dict(mean(candidates))
    reestimate(soup, images, CENTRE, SPREAD)
    return checkpoint.Checkpoint(soup.state_dict(), pruned.masks, {})


def _train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    steps: int,
    masks: Mapping[str, Tensor],
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(model.parameters(), RATE, 0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, steps)
    weights = dict(model.named_parameters())
    model.train().to(memory_format=torch.channels_last)
    for step in range(steps):
        rows = torch.randint(len(images), (BATCH,), generator=generator)
        batch = normalised(images[rows]).contiguous(memory_format=torch.channels_last)
        loss = functional.cross_entropy(model(batch), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for key, mask in masks.items():
                weights[key].mul_(mask)
        if step % 20 == 0:
            print(f"  step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    model.to(memory_format=torch.contiguous_format)


def normalised(images: Tensor) -> Tensor:
    """Return uint8 images as the network's input."""
    return (images / 255 - CENTRE.view(3, 1, 1)) / SPREAD.view(3, 1, 1)
