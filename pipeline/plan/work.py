"""The vocabulary in which a method is written down: pretrain, prune, retrain, merge, report.

Every call adds a stage to the graph, or finds the one that does the same work already: phase 1's
pruning is one stage however many methods start from it (pipeline/plan/ledger.py).
"""

from collections.abc import Sequence
from typing import Any

from pipeline.params import Prune
from pipeline.plan.ledger import Ledger, joined
from pipeline.plan.nodes import Row, artifact
from pipeline.prune.ladder import sparsities
from pipeline.prune.rules import module_name
from pipeline.seeds import derive


class Work(Ledger):
    """One seed's share of a growing plan, written phase by phase."""

    def vary(self, variant: str, values: dict[str, Any]) -> "Work":
        """Return a vocabulary for other settings; ``variant`` marks the stages they change."""
        settings = self.settings.changed(values)
        same = settings == self.settings
        return Work(self.plan, self.seed, settings, self.variant if same else variant)

    @property
    def phases(self) -> range:
        """The prune-retrain cycles, counted from 1."""
        return range(1, self.settings.phases + 1)

    @property
    def m(self) -> int:
        """How many candidates make a soup."""
        return self.settings.m

    def sparsity(self, phase: int) -> float:
        """Return the sparsity that the ladder gives to ``phase``; phase 0 is dense."""
        ladder = sparsities(self.settings.target_sparsity, self.settings.phases)
        return ladder[phase - 1] if phase else 0.0

    def data(self) -> str:
        """Return the prepared data set; all seeds share it."""
        own = self.settings.data
        flags = {"name": own.name, "root": own.path, "size": own.size}
        files = (own.path,) if own.name == "image_folder" and own.path else ()
        modules = (f"pipeline.data.{own.name}",)
        return self.add("data", "prepare", flags, files=files, modules=modules, shared=True)

    def pretrain(self) -> str:
        """Return the trained dense network."""
        own, s = self.settings, self.settings.pretrain
        flags = {
            "data": artifact(self.data()),
            "network": own.network.name,
            "weights": own.network.weights,
            "epochs": s.epochs,
            "schedule": s.schedule,
            "milestones": s.milestones,
            "warmup": s.warmup or None,
            "learning_rate": s.learning_rate,
            "seed": derive(self.seed, "pretrain"),
            **self._training(s.weight_decay),
        }
        files = (own.network.weights,) if own.network.weights else ()
        return self.add("dense", "pretrain", flags, files=files, modules=self._learning())

    def prune(self, parent: str, phase: int, run: int | None = None) -> str:
        """Return ``parent`` pruned to the sparsity of ``phase``."""
        own = self.settings.prune
        flags = {
            "parent": artifact(parent),
            "phase": phase,
            "sparsity": self.sparsity(phase),
            "criterion": own.criterion,
            "allocation": own.allocation,
        }
        modules = (*_pruning(own), *self._network())
        lineage = "" if parent == self.pretrain() else self.lineage
        branch = f"c{run}" if lineage and run is not None else ""
        name = joined(lineage, f"p{phase}", branch, "prune")
        return self.add(name, "prune", flags, modules=modules, phase=phase)

    def retrain(self, pruned: str, phase: int, candidate: int = 0, times: int = 1) -> str:
        """Return candidate ``candidate`` of a pruned network, retrained ``times`` as long."""
        own = self.settings
        epochs, decay, schedule, peak = self._candidate(candidate)
        seed_of = candidate if own.retrain.vary == "seed" else 0
        flags = {
            "data": artifact(self.data()),
            "parent": artifact(pruned),
            "dense": artifact(self.pretrain()),
            "epochs": epochs * times,
            "schedule": schedule,
            "learning_rate": peak,
            "seed": derive(self.seed, "retrain", phase, seed_of),
            **self._training(decay),
        }
        shared = times == 1 and self.plan.nodes[pruned].inputs == (self.pretrain(),)
        name = joined("" if shared else self.lineage, f"p{phase}", f"c{candidate}")
        modules = self._learning()
        return self.add(name, "retrain", flags, modules=modules, phase=phase, candidate=candidate)

    def merge(self, candidates: Sequence[str], phase: int, rule: str) -> str:
        """Return the soup of ``candidates``, which share one mask, by ``rule``."""
        flags = {
            "data": artifact(self.data()),
            "candidates": [artifact(name) for name in candidates],
            "rule": rule,
        }
        name = joined(self.method, f"p{phase}")
        return self.add(name, "merge", flags, modules=self._learning(), phase=phase)

    def reprune(self, runs: Sequence[str], phase: int) -> str:
        """Return the average of ``runs``, whose masks differ, pruned to the phase's sparsity."""
        own = self.settings.prune
        flags = {
            "data": artifact(self.data()),
            "runs": [artifact(name) for name in runs],
            "sparsity": self.sparsity(phase),
            "criterion": own.criterion,
            "allocation": own.allocation,
        }
        modules = (*_pruning(own), *self._learning())
        name = joined(self.method, f"p{phase}")
        return self.add(name, "reprune", flags, modules=modules, phase=phase)

    def report(self, phase: int, model: str, candidates: Sequence[str] = ()) -> None:
        """Measure ``model`` as the method's result of ``phase``, beside its ``candidates``."""
        data, short = artifact(self.data()), model.removeprefix(f"{self.name()}-")
        flags = {"data": data, "model": artifact(model), "groups": self.settings.evaluate.groups}
        learning = self._learning()
        summary = f"pipeline.evaluate.{self.settings.task}"
        evaluate = self.add(
            f"{short}-eval", "evaluate", flags, modules=(*learning, summary), phase=phase
        )
        compare = None
        if candidates:
            flags = {
                "data": data,
                "candidates": [artifact(name) for name in candidates],
                "soup": artifact(model),
            }
            compare = self.add(f"{short}-compare", "compare", flags, modules=learning, phase=phase)
        self.plan.rows.append(
            Row(
                method=self.method,
                phase=phase,
                seed=self.seed,
                sparsity=self.sparsity(phase),
                model=model,
                candidates=tuple(candidates),
                evaluate=evaluate,
                compare=compare,
                robustness=self._robustness(f"{short}-ood", model, phase),
            )
        )

    def _robustness(self, short: str, model: str, phase: int) -> str | None:
        own = self.settings.evaluate
        last = phase in (0, self.settings.phases)
        if self.settings.task != "classification":
            return None
        if own.corruptions == "none" or (own.corruptions == "final" and not last):
            return None
        data = artifact(self.data())
        official = own.corruptions_path
        corruptions = official or artifact(
            self.add("corruptions", "corrupt", {"data": data}, shared=True)
        )
        return self.add(
            short,
            "robustness",
            {"data": data, "model": artifact(model), "corruptions": corruptions},
            files=(official,) if official else (),
            modules=self._network(),
            phase=phase,
        )

    def _candidate(self, candidate: int) -> tuple[int, float, str, float | None]:
        """Return epochs, weight decay, schedule and peak learning rate of a candidate."""
        own = self.settings
        epochs, decay = own.retrain.epochs, own.pretrain.weight_decay
        schedule, peak = own.retrain.schedule, None
        if candidate and own.retrain.vary != "seed":
            value = own.retrain_values()[candidate - 1]
            if own.retrain.vary == "epochs":
                epochs = int(value)
            elif own.retrain.vary == "weight_decay":
                decay = value
            else:  # the paper varies the initial rate of a linear schedule
                schedule, peak = "LLR", value
        return epochs, decay, schedule, peak

    def _training(self, weight_decay: float) -> dict[str, Any]:
        """Return the flags that pretraining and retraining share."""
        own, augmentation = self.settings.pretrain, self.settings.augmentation
        return {
            "batch_size": own.batch_size,
            "weight_decay": weight_decay,
            "label_smoothing": own.label_smoothing or None,
            "clip_norm": own.clip_norm,
            "crop_padding": augmentation.crop_padding or None,
            "flip": augmentation.flip,
            "rotation": augmentation.rotation or None,
        }

    def _network(self) -> tuple[str, ...]:
        name = self.settings.network.name
        return () if name.startswith("torchvision.") else (f"pipeline.models.{name}",)

    def _learning(self) -> tuple[str, ...]:
        """Return the modules of the network and of what it learns."""
        return (*self._network(), f"pipeline.tasks.{self.settings.task}")


def _pruning(prune: Prune) -> tuple[str, str]:
    """Return the modules of the criterion and the allocation."""
    criterion = module_name("criteria", prune.criterion)
    return criterion, module_name("allocations", prune.allocation)
