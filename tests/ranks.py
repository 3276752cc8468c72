"""What tests/test_distributed.py trains: alone, or as ``python -m tests.ranks FOLDER`` by two.

On a GPU, if ``RANKS_DEVICE`` is cuda, which both share: NCCL would want two, gloo does not.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.data.base import IGNORE, Dataset
from pipeline.sparsify.base import SparsifyConfig
from pipeline.sparsify.build import build, names
from pipeline.train.criterion import CrossEntropy
from pipeline.train.distill import Distilled
from pipeline.train.distributed import all_reduce_mean, local_shard, rank
from pipeline.train.ema import AverageSteps
from pipeline.train.loop import Hook, Settings, train
from pipeline.train.s2sam import SingleStep
from pipeline.train.sam import SharpnessAware
from pipeline.train.settings import Augmentation
from pipeline.train.step import Step
from pipeline.train.swa import AverageEpochs
from pipeline.train.sync_batchnorm import synchronise
from tests.test_loop import dataset, random_masks, small

AUGMENTED = Augmentation(crop_padding=1, flip=True, rotation=10.0)
SETTINGS = Settings(15, 5e-4, clip_norm=0.5, label_smoothing=0.1, augmentation=AUGMENTED)
DEVICE = torch.device(os.environ.get("RANKS_DEVICE", "cpu"))
RATES = [0.05 - 0.004 * step for step in range(12)]  # three epochs of 64 // 15 steps
GOAL = SparsifyConfig(
    sparsity=0.5,
    epochs=4,
    pruning_steps=2,
    mask_interval=2,
    lc_mu0=1e-3,
    dst_alpha=1e-3,
    rigl_interval=3,
    epoch_steps=4,
)


def plain(*more: nn.Module) -> nn.Module:
    """Return a network without BatchNorm."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), *more, nn.Flatten(), nn.Linear(216, 3))


def pixels() -> nn.Module:
    """Return a network that scores each pixel."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1))


def maps() -> Dataset:
    """Return images with a label a pixel, most of which count in every other image only."""
    data, halves = dataset(), []
    for split in (data.train, data.val):
        labels = (split.images[:, 0].long() * 3) // 256
        labels[1::2, :, 1:] = IGNORE
        halves.append(replace(split, labels=labels))
    return replace(data, train=halves[0], val=halves[1])


class Gradients(Hook):
    """Keeps what hooks see of the first step's gradients."""

    def __init__(self) -> None:
        self.seen: dict[str, Tensor] = {}

    def on_gradients(self, model: nn.Module, step: int) -> None:
        for name, parameter in model.named_parameters():
            if step == 1 and parameter.grad is not None:
                self.seen[name] = parameter.grad.cpu().clone()


class Zeros(Hook):
    """Counts pruned weights that are not +0.0 after a step."""

    def __init__(self, masks: dict[str, Tensor]) -> None:
        self.masks, self.wrong, self.steps = masks, 0, 0

    def on_step_end(self, model: nn.Module, step: int) -> None:
        self.steps = step
        for name, mask in self.masks.items():
            pruned = model.get_parameter(name).cpu()[~mask]
            self.wrong += int((pruned.ne(0) | pruned.signbit()).sum())


def trained(
    model: nn.Module,
    settings: Settings = SETTINGS,
    data: Dataset | None = None,
    hooks: Sequence[Hook] = (),
    masks: dict[str, Tensor] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Train ``model`` and return all that came of it."""
    history = train(
        model,
        data or dataset(),
        settings,
        RATES,
        seed=3,
        hooks=hooks,
        masks=masks,
        device=DEVICE,
        **more,
    )
    seed = torch.initial_seed()  # of dropout's stream
    return {"state": model.cpu().state_dict(), "history": history, "seed": seed}


def masked(make: Callable[[], nn.Module], settings: Settings = SETTINGS) -> dict[str, Any]:
    """Train under masks, and return the first gradients and how often a mask was broken too."""
    model = make()
    masks = random_masks(model)
    gradients, zeros = Gradients(), Zeros(masks)
    found = trained(model, settings, hooks=[gradients, zeros], masks=masks)
    return found | {"gradients": gradients.seen, "wrong": zeros.wrong, "steps": zeros.steps}


def sharp(kind: type[Step]) -> dict[str, Any]:
    """Train with a kind of SAM, distillation and an average over steps."""
    teacher = plain(nn.BatchNorm2d(6)).to(DEVICE)
    return trained(
        small(),
        hooks=[AverageSteps(0.8)],
        masks=random_masks(small()),
        criterion=Distilled(CrossEntropy(), teacher, weight=0.5, temperature=2.0),
        step_type=partial(kind, rho=0.1),
    )


def pruned(method: str) -> dict[str, Any]:
    """Prune while training."""
    hook = build(method, GOAL)
    return trained(plain(), hooks=[hook]) | {"masks": hook.masks}


SCENARIOS: dict[str, Callable[[], dict[str, Any]]] = {
    "plain": lambda: masked(plain),
    "norm": lambda: masked(small),
    "bf16": lambda: masked(small, replace(SETTINGS, precision="bf16")),
    "pixels": lambda: trained(pixels(), replace(SETTINGS, clip_norm=None), maps()),
    "swa": lambda: trained(plain(), hooks=[AverageEpochs(0.0, 3)]),
    "sam": lambda: sharp(SharpnessAware),
    "s2sam": lambda: sharp(SingleStep),
    "dropout": lambda: trained(plain(nn.Dropout(0.3))),
    **{method: lambda method=method: pruned(method) for method in names()},
}


def norm() -> dict[str, Any]:
    """Return what a BatchNorm layer makes of seven examples, and their gradients."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(7, 4, 3, 5, generator=generator) * 2 + 1
    weights = torch.randn(7, 4, 3, 5, generator=generator)
    layer = nn.Sequential(nn.BatchNorm2d(4))
    nn.init.uniform_(layer[0].weight, generator=generator)
    layer.to(DEVICE)
    if dist.is_initialized():
        synchronise(layer, DEVICE)
    part = local_shard(7)
    x = inputs[part].to(DEVICE, copy=True).requires_grad_()
    y = layer(x)
    (y * weights[part].to(DEVICE)).sum().backward()
    assert x.grad is not None
    return {"y": y.detach().cpu(), "x": x.grad.cpu(), "state": layer.cpu().state_dict()}


def means() -> list[Tensor]:
    """Return means of two tensors, one in another layout, over 1 and 3 examples."""
    ones = torch.ones(2, 3, 2, 2).to(memory_format=torch.channels_last)
    sums = [ones * 10 * rank(), torch.arange(3.0) + rank()]
    all_reduce_mean(sums, torch.tensor([1, 3])[rank()])
    return sums


def main() -> None:
    """Train as one of two, whatever is asked for, and write what this process has."""
    dist.init_process_group("gloo")
    found: dict[str, Any] = {name: run() for name, run in SCENARIOS.items()}
    found |= {"layer": norm(), "means": means()}
    try:
        train(plain(), dataset(1), SETTINGS, RATES, seed=0)
    except Exception as error:
        found["refused"] = repr(error)
    torch.save(found, Path(sys.argv[1]) / f"{rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
