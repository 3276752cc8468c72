"""The vocabulary in which a method is written down: pretrain, prune, retrain, merge, report.

Every call adds a stage to the graph, or finds the one that does the same work already: phase 1's
pruning is one stage however many methods start from it (pipeline/plan/ledger.py).
"""

from collections.abc import Sequence
from copy import copy
from typing import Any, Self

from pipeline.config.schema import Prune
from pipeline.errors import UserError
from pipeline.plan import raw_data
from pipeline.plan.corruptions import corrupted
from pipeline.plan.ledger import Ledger, join_name
from pipeline.plan.plan import Result, artifact
from pipeline.prune.rules import SEEDED, module_name
from pipeline.schedules.sparsity import sparsities
from pipeline.seeds import derive
from pipeline.soup import build as rules
from pipeline.train.settings import flag_values


class Planner(Ledger):
    """One seed's share of a growing plan, written phase by phase."""

    def with_settings(self, variant: str, values: dict[str, Any]) -> Self:
        """Return a vocabulary for other settings; ``variant`` marks the stages they change."""
        other = copy(self)
        other.settings = self.settings.with_values(values)
        other.variant = self.variant if other.settings == self.settings else variant
        other.set_method("dense")
        return other

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
        flags = {
            "name": own.name,
            "task": self.settings.task,
            "root": own.path,
            "size": own.size,
        }
        files = (own.path,) if own.name == "image_folder" and own.path else ()
        if not files:
            flags["listing"] = self.plan.once(raw_data.listing, own.name, own.path)
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
            **self.training_flags(s.weight_decay),
        }
        files = (own.network.weights,) if own.network.weights else ()
        return self.add("dense", "pretrain", flags, files=files, modules=self.learning_modules())

    def prune(self, parent: str, phase: int, run: int | None = None) -> str:
        """Return ``parent`` pruned to the sparsity of ``phase``."""
        own = self.settings.prune
        flags = {
            "parent": artifact(parent),
            "phase": phase,
            "sparsity": self.sparsity(phase),
            **_rule(own),
        }
        modules = (*_pruning(own), *self.network_modules())
        lineage = "" if parent == self.pretrain() else self.lineage
        branch = f"c{run}" if lineage and run is not None else ""
        flags["seed"] = self._pruning_seed(phase, run if branch else None)
        name = join_name(lineage, f"p{phase}", branch, "prune")
        return self.add(name, "prune", flags, modules=modules, phase=phase)

    def retrain(
        self, pruned: str, phase: int, candidate: int = 0, times: int = 1, **more: Any
    ) -> str:
        """Return candidate ``candidate`` of a pruned network, retrained ``times`` as long.

        With ``more`` flags of the stage the network is this method's alone, phase 1's too.
        """
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
            **self.training_flags(decay),
            **more,
        }
        shared = times == 1 and not more and self.plan.nodes[pruned].inputs == (self.pretrain(),)
        name = join_name("" if shared else self.lineage, f"p{phase}", f"c{candidate}")
        modules = self.learning_modules()
        return self.add(name, "retrain", flags, modules=modules, phase=phase, candidate=candidate)

    def merge(self, candidates: Sequence[str], phase: int, rule: str, name: str = "") -> str:
        """Return the soup of ``candidates``, which share one mask, by ``rule``.

        It is the method's own of this phase; of several of one phase, all but one need a ``name``.
        """
        asked = rules.required_inputs(rule)
        if not self.can_merge(rule):
            raise UserError(
                f"merge: {rule} learns from the dense network's logits, which are kept of "
                f"classification and not of {self.settings.task}: leave {rule} out"
            )
        learns = "loss" in asked or "distillation" in asked
        flags = {
            "data": artifact(self.data()),
            "candidates": [artifact(each) for each in candidates],
            "rule": rule,
            "parent": self._parent(candidates[0], rule) if "parent" in asked else None,
            "dense": artifact(self.pretrain()) if "distillation" in asked else None,
            "seed": derive(self.seed, "merge", phase) if learns else None,
        }
        modules = (rules.module_name(rule), *self.learning_modules())
        name = name or join_name(self.method, f"p{phase}")
        return self.add(name, "merge", flags, modules=modules, phase=phase)

    def can_merge(self, rule: str) -> bool:
        """Return whether the task keeps what ``rule`` asks for: only classifiers keep logits."""
        asked = rules.required_inputs(rule)
        return self.settings.task == "classification" or "distillation" not in asked

    def reprune(
        self,
        runs: Sequence[str],
        phase: int,
        average: str | None = None,
        unaligned: Sequence[str] = (),
    ) -> str:
        """Return the average of ``runs``, whose masks differ, pruned to the phase's sparsity.

        Of runs whose channels were matched the ``unaligned`` ones are measured beside them.
        """
        own = self.settings.prune
        flags = {
            "data": artifact(self.data()),
            "runs": [artifact(name) for name in runs],
            "sparsity": self.sparsity(phase),
            **_rule(own),
            "seed": self._pruning_seed(phase),
            "average": average,
            "unaligned": [artifact(name) for name in unaligned],
        }
        modules = (*_pruning(own), *self.learning_modules())
        name = join_name(self.method, f"p{phase}")
        return self.add(name, "reprune", flags, modules=modules, phase=phase)

    def report(self, phase: int, model: str, candidates: Sequence[str] = ()) -> None:
        """Measure ``model`` as the method's result of ``phase``, beside its ``candidates``."""
        data, short = artifact(self.data()), self._short(model)
        flags = {"data": data, "model": artifact(model), "groups": self.settings.evaluate.groups}
        summary = f"pipeline.evaluate.{self.settings.task}"
        modules = (*self.learning_modules(), summary)
        evaluate = self.add(f"{short}-eval", "evaluate", flags, modules=modules, phase=phase)
        self.plan.rows.append(
            Result(
                method=self.method,
                phase=phase,
                seed=self.seed,
                sparsity=self.sparsity(phase),
                model=model,
                candidates=tuple(candidates),
                evaluate=evaluate,
                compare=self.compare(model, candidates, phase) if candidates else None,
                robustness=self._robustness(f"{short}-ood", model, phase),
                shrink=self._shrink(f"{short}-shrink", model, phase),
                is_soup=self.plan.is_soup(model),
            )
        )

    def compare(self, model: str, candidates: Sequence[str], phase: int) -> str:
        """Set ``model`` beside the ``candidates`` it is made of: the best, distances, ensemble."""
        flags = {
            "data": artifact(self.data()),
            "candidates": [artifact(name) for name in candidates],
            "soup": artifact(model),
        }
        short = f"{self._short(model)}-compare"
        return self.add(short, "compare", flags, modules=self.learning_modules(), phase=phase)

    def _short(self, model: str) -> str:
        return model.removeprefix(f"{self.name()}-")

    def _shrink(self, short: str, model: str, phase: int) -> str | None:
        """Remove the filters that the last phase's network lacks, and measure what that saves."""
        if self.settings.prune.structure == "weights" or phase != self.settings.phases:
            return None
        flags = {"data": artifact(self.data()), "model": artifact(model)}
        return self.add(short, "shrink", flags, modules=self.network_modules(), phase=phase)

    def _robustness(self, short: str, model: str, phase: int) -> str | None:
        own = self.settings.evaluate
        last = phase in (0, self.settings.phases)
        if self.settings.task != "classification":
            return None
        if own.corruptions == "none" or (own.corruptions == "final" and not last):
            return None
        data = artifact(self.data())
        corruptions, files = corrupted(self)
        flags = {"data": data, "model": artifact(model), "corruptions": corruptions}
        modules = self.network_modules()
        return self.add(short, "robustness", flags, files=files, modules=modules, phase=phase)

    def _parent(self, candidate: str, rule: str) -> str:
        """Return the folder of the pruned model that ``candidate`` was retrained from."""
        found = self.plan.nodes[candidate].arguments.get("parent")
        if found is None:
            raise UserError(
                f"merge: {rule} starts from the candidates' pruned parent, but those of "
                f"{self.method} have none: leave {rule} out"
            )
        return str(found)

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

    def _pruning_seed(self, phase: int, run: int | None = None) -> int | None:
        """Return the seed of an allocation that draws at random, another one for a later run."""
        if self.settings.prune.allocation not in SEEDED:
            return None
        return derive(self.seed, "prune", phase, *([run] if run else []))

    def training_flags(self, weight_decay: float) -> dict[str, Any]:
        """Return the flags that pretraining and retraining share."""
        sections = (self.settings.augmentation, self.settings.pretrain)
        values = {key: value for section in sections for key, value in section}
        return flag_values(values | {"weight_decay": weight_decay})

    def network_modules(self) -> tuple[str, ...]:
        """Return the module of the network, if it is one of ours."""
        name = self.settings.network.name
        return () if name.startswith("torchvision.") else (f"pipeline.models.{name}",)

    def learning_modules(self) -> tuple[str, ...]:
        """Return the modules of the network and of what it learns."""
        return (*self.network_modules(), f"pipeline.tasks.{self.settings.task}")


def _rule(prune: Prune) -> dict[str, str]:
    """Return the flags that say what is pruned and how it is ranked."""
    if prune.structure == "filters":
        return {"structure": "filters"}
    return {"criterion": prune.criterion, "allocation": prune.allocation}


def _pruning(prune: Prune) -> tuple[str, ...]:
    """Return the modules of the criterion and the allocation."""
    if prune.structure == "filters":
        return ()
    criterion = module_name("criteria", prune.criterion)
    return criterion, module_name("allocations", prune.allocation)
