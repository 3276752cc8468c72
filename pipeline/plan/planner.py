"""Planner: the functions that methods call: pretrain, prune, retrain, merge, reprune, report.

Each call adds a stage to the graph, or returns the stage that does the same work already: the
pruning of phase 1 is one stage, which all methods share.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any, Self

from pipeline.errors import UserError
from pipeline.plan.measurements import compare, evaluate, export, robustness, shrink
from pipeline.plan.plan import Result, artifact
from pipeline.plan.stage_adder import StageAdder, join_name
from pipeline.prune.pattern import Pattern, parse
from pipeline.prune.rules import is_random, module_name
from pipeline.schedules.sparsity import sparsities
from pipeline.seeds import derive
from pipeline.soup import build as rules
from pipeline.train.settings import flag_values


class Planner(StageAdder):
    """Plans one seed of a method, phase by phase."""

    def with_settings(self, variant: str, values: dict[str, Any]) -> Self:
        """Return a planner with other settings; ``variant`` marks the stages they change."""
        other = copy(self)
        other.settings = self.settings.with_values(values, self.source)
        other.variant = self.variant if other.settings == self.settings else variant
        other.set_method("dense")
        return other

    @property
    def source(self) -> str:
        """The name of who sets other values, for errors."""
        return self.method

    @property
    def phases(self) -> range:
        """The prune-retrain cycles, counted from 1."""
        return range(1, self.settings.phases + 1)

    @property
    def m(self) -> int:
        """The number of candidates of a soup."""
        return self.settings.m

    def sparsity(self, phase: int) -> float:
        """Return the sparsity after ``phase``; 0 after phase 0, which is the dense network.

        With N:M pruning it is that of the layers that have the pattern.
        """
        if pattern := self.pattern(phase):
            return pattern.sparsity
        ladder = sparsities(self.settings.target_sparsity, self.settings.phases)
        return ladder[phase - 1] if phase else 0.0

    def pattern(self, phase: int) -> Pattern | None:
        """Return the N:M pattern after ``phase``; None with another structure and after phase 0."""
        final = parse(self.settings.prune.structure)
        return final.levels(self.settings.phases)[phase - 1] if final and phase else None

    def pretrain(self, to_epoch: int | None = None) -> str:
        """Return the trained dense network, or the network after the epoch ``to_epoch``."""
        network, schedule = self.settings.network, self.settings.pretrain
        flags = {
            "data": artifact(self.data()),
            "network": network.name,
            "weights": network.weights,
            "epochs": schedule.epochs,
            "to_epoch": to_epoch,
            **self.pretrain_schedule(),
            "seed": derive(self.seed, "pretrain"),
            **self.training_flags(schedule.weight_decay),
        }
        files = (network.weights,) if network.weights else ()
        name = "dense" if to_epoch is None else "early"
        return self.add(name, "pretrain", flags, files=files, modules=self.learning_modules())

    def prune(self, parent: str, phase: int, run: int | None = None) -> str:
        """Return ``parent`` pruned to the sparsity of ``phase``.

        Of several independent runs each gives its number as ``run``.
        """
        flags = {
            "parent": artifact(parent),
            "phase": phase,
            "sparsity": self.sparsity(phase),
            **self._pruning_flags(phase),
        }
        lineage = "" if parent == self.pretrain() else self.lineage
        branch = f"c{run}" if lineage and run is not None else ""
        flags["seed"] = self._pruning_seed(phase, run if branch else None)
        name = join_name(lineage, f"p{phase}", branch, "prune")
        modules = (*self._pruning_modules(), *self.network_modules())
        return self.add(name, "prune", flags, modules=modules, phase=phase)

    def retrain(
        self, pruned: str, phase: int, candidate: int = 0, times: int = 1, **more: Any
    ) -> str:
        """Return candidate ``candidate`` of a pruned network, retrained ``times`` as long.

        A network with ``more`` flags of the stage is not shared with other methods in phase 1.
        """
        epochs, decay, schedule, peak = self._candidate(candidate)
        seed_of = candidate if self.settings.retrain.vary == "seed" else 0
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

        It is named for the method and the phase; of several soups of one phase, all but one need
        a ``name``.

        Raises:
            UserError: ``rule`` needs something that this task or method does not have.
        """
        needs = rules.required_inputs(rule)
        if not self.can_merge(rule):
            raise UserError(
                f"merge: {rule} learns from the dense network's logits, which are kept of "
                f"classification and not of {self.settings.task}: leave {rule} out"
            )
        learns = "loss" in needs or "distillation" in needs
        flags = {
            "data": artifact(self.data()),
            "candidates": [artifact(each) for each in candidates],
            "rule": rule,
            "parent": self._parent(candidates[0], rule) if "parent" in needs else None,
            "dense": artifact(self.pretrain()) if "distillation" in needs else None,
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

        Args:
            runs: the networks.
            phase: the phase whose sparsity is reached.
            average: how they are averaged; by default by the mean.
            unaligned: the same networks before their channels were matched, to compare with.
        """
        flags = {
            "data": artifact(self.data()),
            "runs": [artifact(name) for name in runs],
            "sparsity": self.sparsity(phase),
            **self._pruning_flags(phase),
            "seed": self._pruning_seed(phase),
            "average": average,
            "unaligned": [artifact(name) for name in unaligned],
        }
        modules = (*self._pruning_modules(), *self.learning_modules())
        name = join_name(self.method, f"p{phase}")
        return self.add(name, "reprune", flags, modules=modules, phase=phase)

    def interpolate_tickets(self, ticket: str, pool: Sequence[str], phase: int) -> str:
        """Return ``ticket`` interpolated with those of ``pool``, at the phase's sparsity."""
        flags = {
            "data": artifact(self.data()),
            "ticket": artifact(ticket),
            "pool": [artifact(name) for name in pool],
            "sparsity": self.sparsity(phase),
            **self._pruning_flags(phase),
            "seed": self._pruning_seed(phase),
        }
        modules = (*self._pruning_modules(), *self.learning_modules())
        name = join_name(self.method, f"p{phase}")
        return self.add(name, "lottery_pools", flags, modules=modules, phase=phase)

    def report(self, phase: int, model: str, candidates: Sequence[str] = ()) -> None:
        """Measure ``model`` as the method's result of ``phase``, made of its ``candidates``."""
        self.plan.rows.append(
            Result(
                method=self.method,
                phase=phase,
                seed=self.seed,
                sparsity=self.sparsity(phase),
                model=model,
                candidates=tuple(candidates),
                evaluate=evaluate(self, model, phase),
                compare=compare(self, model, candidates, phase) if candidates else None,
                robustness=robustness(self, model, phase),
                shrink=shrink(self, model, phase),
                is_soup=self.plan.is_soup(model),
            )
        )
        export(self, self.plan.rows[-1])

    def pretrain_schedule(self) -> dict[str, Any]:
        """Return the flags of the learning rate in pretraining and in pruning during training."""
        settings = self.settings.pretrain
        return {
            "schedule": settings.schedule,
            "milestones": settings.milestones,
            "warmup": settings.warmup or None,
            "learning_rate": settings.learning_rate,
        }

    def training_flags(self, weight_decay: float) -> dict[str, Any]:
        """Return the flags that pretraining and retraining share."""
        sections = (self.settings.augmentation, self.settings.pretrain)
        values = {key: value for section in sections for key, value in section}
        return flag_values(values | {"weight_decay": weight_decay})

    def _parent(self, candidate: str, rule: str) -> str:
        """Return the folder of the pruned model that ``candidate`` was retrained from."""
        parent = self.plan.nodes[candidate].arguments.get("parent")
        if parent is None:
            raise UserError(
                f"merge: {rule} starts from the candidates' pruned parent, but those of "
                f"{self.method} have none: leave {rule} out"
            )
        return str(parent)

    def _candidate(self, candidate: int) -> tuple[int, float, str, float | None]:
        """Return epochs, weight decay, schedule and peak learning rate of a candidate."""
        retrain, decay = self.settings.retrain, self.settings.pretrain.weight_decay
        epochs, schedule, peak = retrain.epochs, retrain.schedule, None
        if candidate and retrain.vary != "seed":
            value = self.settings.retrain_values()[candidate - 1]
            if retrain.vary == "epochs":
                epochs = int(value)
            elif retrain.vary == "weight_decay":
                decay = value
            else:  # the paper varies the initial rate of a linear schedule
                schedule, peak = "LLR", value
        return epochs, decay, schedule, peak

    def _pruning_seed(self, phase: int, run: int | None = None) -> int | None:
        """Return the seed of an allocation that draws at random, another one for a later run."""
        if not is_random(self.settings.prune.allocation):
            return None
        return derive(self.seed, "prune", phase, *([run] if run else []))

    def _pruning_flags(self, phase: int) -> dict[str, Any]:
        """Return the flags that say what is pruned in ``phase`` and how it is ranked."""
        prune = self.settings.prune
        if prune.structure == "filters":
            return {"structure": "filters"}
        if pattern := self.pattern(phase):
            return {"structure": str(pattern), "criterion": prune.criterion}
        return {"criterion": prune.criterion, "allocation": prune.allocation}

    def _pruning_modules(self) -> tuple[str, ...]:
        """Return the modules of the criterion and the allocation that the structure uses."""
        prune = self.settings.prune
        if prune.structure == "filters":
            return ()
        criterion = module_name("criteria", prune.criterion)
        if parse(prune.structure):
            return (criterion,)
        return criterion, module_name("allocations", prune.allocation)
