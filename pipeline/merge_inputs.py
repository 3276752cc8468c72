"""What a merge rule may ask for by the name of its argument; each is made when it is asked for."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.average import check
from pipeline.checkpoint import Checkpoint, load_tensors, read_json
from pipeline.data.base import Dataset
from pipeline.errors import UserError
from pipeline.model_folder import accuracy, calibrated, network, read
from pipeline.seeds import derive
from pipeline.soup.base import Objective
from pipeline.train.normalise import normaliser
from pipeline.train.slopes import slopes

BATCH = 256  # validation images a step, and as many training images for BatchNorm's statistics


class MergeInputs:
    """The candidates of one merge, and how a soup of them is judged on the validation split.

    Args:
        folders: the candidates' model folders, retrained from one parent.
        data: the images.
        device: where soups are run.
        parent: the folder of the pruned model, for rules that ask for it.
        dense: the folder of the dense model, for rules that ask for ``distillation``.
        seed: of the batches that an objective's slopes are taken on.
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
        self.candidates = [read(folder) for folder in folders]

    @cached_property
    def val_accuracies(self) -> list[float]:
        """Each candidate's validation accuracy."""
        return [read_json(folder / "metrics.json")["val_accuracy"] for folder in self.folders]

    def accuracy(self, soup: Checkpoint) -> float:
        """Return the validation accuracy of ``soup``, its BatchNorm re-estimated."""
        return accuracy(self._logits(soup), self.data.val)

    @cached_property
    def parent(self) -> Checkpoint:
        """The pruned model that the candidates were retrained from."""
        return read(self._folder("parent"))

    @cached_property
    def parameters(self) -> list[str]:
        """The names of the tensors that are trained."""
        return [name for name, _ in network(self.candidates[0]).named_parameters()]

    @cached_property
    def loss(self) -> Objective:
        """The cross-entropy with the labels."""
        return self._objective(self.data.val.labels)

    @cached_property
    def distillation(self) -> Objective:
        """The cross-entropy with the dense model's predictions."""
        stored = load_tensors(self._folder("dense") / "logits.safetensors")
        return self._objective(stored["val"].softmax(1))

    def _objective(self, targets: Tensor) -> Objective:
        check(self.candidates)
        own = [load_tensors(folder / "logits.safetensors")["val"] for folder in self.folders]
        model = network(self.candidates[0]).to(self.device)
        ends = [
            [each.state[name].to(self.device) for name in self.parameters]
            for each in self.candidates
        ]
        normalise = normaliser(self.data.mean, self.data.std, self.device)

        def of_batch(weights: Tensor, step: int) -> Tensor:
            generator = torch.Generator().manual_seed(derive(self.seed, "batch", step))
            splits = (self.data.val, self.data.train)
            drawn = [torch.randperm(len(one), generator=generator)[:BATCH] for one in splits]
            images = [one.images[rows] for one, rows in zip(splits, drawn, strict=True)]
            inputs = normalise(torch.cat(images).to(self.device))
            return slopes(model, ends, weights, inputs, targets[drawn[0]].to(self.device))

        return Objective(
            alone=[_loss(logits, targets) for logits in own],
            value=lambda soup: _loss(self._logits(soup), targets),
            slopes=of_batch,
        )

    def _logits(self, soup: Checkpoint) -> Tensor:
        return calibrated(soup, self.data, self.device)[1]

    def _folder(self, flag: str) -> Path:
        found = self.folder_of[flag]
        if found is None:
            raise UserError(f"this merge rule needs the {flag} model: give its folder as --{flag}.")
        return found


def _loss(logits: Tensor, targets: Tensor) -> float:
    wanted = targets.double() if targets.is_floating_point() else targets
    return float(cross_entropy(logits.double(), wanted))
