"""Inputs of merge rules: each is computed when a rule's ``merge`` has an argument of its name."""

from collections.abc import Callable, Sequence
from functools import cached_property
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.averaging import check
from pipeline.data.base import Dataset
from pipeline.errors import UserError
from pipeline.evaluate.metrics import check_finite
from pipeline.seeds import derive
from pipeline.soup.base import Objective
from pipeline.stagekit.model_folder import (
    MODEL,
    PREDICTIONS,
    network,
    network_on,
    trained_augmentation,
    with_batchnorm_statistics,
)
from pipeline.storage.checkpoint import Checkpoint, load_tensors, open_checkpoint, read_json
from pipeline.tasks.base import load as load_task
from pipeline.train.activations import Moments, channel_moments
from pipeline.train.batchnorm import augmented
from pipeline.train.coefficient_gradient import slopes
from pipeline.train.normalise import normaliser
from pipeline.train.placement import to_device
from pipeline.train.predict import eval_batch_size
from pipeline.train.settings import Augmentation


class MergeInputs:
    """The candidates of one merge, and measures of their soups on the validation split.

    The candidates' tensors are read whenever a rule uses them, and not kept in memory.

    Args:
        folders: the candidates' model folders, retrained from one parent.
        data: the images.
        device: for measuring soups.
        parent: the folder of the pruned model, for rules that ask for it.
        dense: the folder of the dense model, for rules that ask for ``distillation``.
        seed: of the batches of an objective's gradient.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        data: Dataset,
        device: torch.device,
        *,
        parent: Path | None = None,
        dense: Path | None = None,
        seed: int = 0,
    ) -> None:
        self.folders, self.data, self.device = folders, data, device
        self.folder_of = {"parent": parent, "dense": dense}
        self.seed = seed
        self.candidates = [open_checkpoint(folder / MODEL) for folder in folders]
        self.task = load_task(data.task)

    @cached_property
    def scores(self) -> list[float]:
        """Each candidate's score on the validation split."""
        return self._measured(self.task.metric)

    def score(self, soup: Checkpoint) -> float:
        """Return the score of ``soup`` on the validation split, its BatchNorm re-estimated."""
        return self._measure(soup)[self.task.metric]

    @cached_property
    def parent(self) -> Checkpoint:
        """The pruned model that the candidates were retrained from."""
        return open_checkpoint(self._folder("parent") / MODEL)

    @cached_property
    def parameters(self) -> list[str]:
        """The names of the tensors that are trained."""
        return [name for name, _ in network(self.candidates[0]).named_parameters()]

    @cached_property
    def loss(self) -> Objective:
        """The task's loss against the labels."""
        return Objective(
            candidate_losses=self._measured("loss"),
            value=lambda soup: self._measure(soup)["loss"],
            gradient=self._slopes(_targets(self.data.val.labels), self.task.loss),
        )

    @cached_property
    def distillation(self) -> Objective:
        """The cross-entropy with the dense model's predictions; only classifiers keep logits."""
        dense, *candidates = (
            load_tensors(folder / PREDICTIONS)["val"]
            for folder in (self._folder("dense"), *self.folders)
        )
        targets = dense.double().softmax(1)
        return Objective(
            candidate_losses=[_loss(logits, targets) for logits in candidates],
            value=lambda soup: _loss(
                with_batchnorm_statistics(soup, self.data, self.device)[1], targets
            ),
            gradient=self._slopes(targets.float(), cross_entropy),
        )

    def activations(self, soup: Checkpoint, goals: Moments | None = None) -> Moments:
        """Return `channel_moments` of ``soup`` on the training images."""
        train = self.data.train.images
        model = network_on(self.device, soup)
        return channel_moments(model, train, self.data.mean, self.data.std, goals)

    def _slopes(
        self, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
    ) -> Callable[[Tensor, int], Tensor]:
        """Return the loss's derivatives by the coefficients, a function of these and the step."""
        check(self.candidates)
        model = network_on(self.device, self.candidates[0])
        ends = [
            [each.state[name].to(self.device) for name in self.parameters]
            for each in self.candidates
        ]
        normalise = normaliser(self.data.mean, self.data.std, self.device)
        augmentation = trained_augmentation(self.candidates[0])
        normalised = any(isinstance(module, _BatchNorm) for module in model.modules())
        val, train = self.data.val, self.data.train
        size = eval_batch_size(val.images)

        def derivatives(weights: Tensor, step: int) -> Tensor:
            generator = torch.Generator().manual_seed(derive(self.seed, "batch", step))
            rows = torch.randperm(len(val), generator=generator)[:size]
            images = [to_device(val.images[rows], self.device)]
            if normalised:  # training images for BatchNorm's statistics
                drawn = [torch.randperm(len(train), generator=generator)[:size]]
                images += augmented(train.images, drawn, augmentation, generator, self.device)
            inputs, y = normalise(torch.cat(images)), to_device(targets[rows], self.device)
            apart = normalised and augmentation != Augmentation()
            return slopes(model, ends, weights, inputs, y, loss, apart=apart)

        return derivatives

    def _measured(self, name: str) -> list[float]:
        return [read_json(folder / "metrics.json")[f"val_{name}"] for folder in self.folders]

    def _measure(self, soup: Checkpoint) -> dict[str, float]:
        predictions = with_batchnorm_statistics(soup, self.data, self.device)[1]
        measured = self.task.measure(predictions, self.data.val, self.data)
        check_finite(finite=isfinite(measured[self.task.metric]) and isfinite(measured["loss"]))
        return measured

    def _folder(self, flag: str) -> Path:
        folder = self.folder_of[flag]
        if folder is None:
            raise UserError(f"this merge rule needs the {flag} model: give its folder as --{flag}.")
        return folder


def _targets(labels: Tensor) -> Tensor:
    """Return ``labels`` in the dtype of a loss: classes as int64, quantities unchanged."""
    return labels if labels.is_floating_point() else labels.long()


def _loss(logits: Tensor, targets: Tensor) -> float:
    return float(cross_entropy(logits.double(), targets))
