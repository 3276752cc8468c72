"""Planner: the functions that methods call: pretrain, prune, retrain, merge, reprune, report.

Each call adds a stage to the graph, or returns the stage that does the same work already: the
pruning of phase 1 is one stage, which all methods share.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any, Self

from pipeline.config.schema import Retrain
from pipeline.errors import UserError
from pipeline.plan.measurements import compare, evaluate, export, robustness, shrink
from pipeline.plan.plan import Result, artifact
from pipeline.plan.retraining import option_flags
from pipeline.plan.stage_adder import StageAdder, join_name
from pipeline.prune.pattern import Pattern, parse
from pipeline.prune.rules import COSTED, is_random, module_name
from pipeline.schedules.sparsity import sparsities
from pipeline.seeds import derive
from pipeline.soup import build as rules
from pipeline.train.retrain_options import modules as option_modules
from pipeline.train.settings import flag_values


class Planner(StageAdder):
    """Plans one seed of a method, phase by phase."""

    def with_settings(self, variant: str, values: dict[str, Any]) -> Self:
        """Return a planner with other settings; ``variant`` marks the stages they change."""
        other = copy(self)
        other.settings = self.settings.with_values(values, self.source)
        if other.settings != self.settings:
            other.variant = join_name(self.variant, variant)
        other.set_method("dense")
        return other

    def with_length(self, length: str, values: dict[str, Any]) -> Self:
        """Return a planner with other lengths of training, which ``length`` names."""
        other = self.with_settings("", values)
        if other.settings != self.settings:
            other.length = join_name(self.length, length)
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
        dense, modules = self.any_length(), self.learning_modules()
        name = "dense" if to_epoch is None else f"early{to_epoch}"
        return dense.add(name, "pretrain", flags, files=files, modules=modules)

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
        files, modules = self._pruning_files(), (*self._pruning_modules(), *self.network_modules())
        planner = self if lineage else self.any_length()
        return planner.add(name, "prune", flags, files=files, modules=modules, phase=phase)

    def retrain(
        self, pruned: str, phase: int, candidate: int = 0, times: int = 1, **more: Any
    ) -> str:
        """Return candidate ``candidate`` of a pruned network, retrained ``times`` as long.

        A network with ``more`` flags of the stage is not shared with other methods in phase 1.
        """
        retrain, decay, peak = self._candidate(candidate)
        flags = {
            "data": artifact(self.data()),
            "parent": artifact(pruned),
            "dense": artifact(self.pretrain()),
            "epochs": retrain.epochs * times,
            "schedule": retrain.schedule,
            "learning_rate": peak,
            "seed": derive(self.seed, "retrain", phase, candidate if retrain.vary == "seed" else 0),
            **self.training_flags(decay),
            **option_flags(self.settings, retrain),
            **more,
        }
        shared = times == 1 and not more and self.of_dense(pruned)
        name = join_name("" if shared else self.lineage, f"p{phase}", f"c{candidate}")
        modules = (*self.learning_modules(), *option_modules(flags))
        return self.add(name, "retrain", flags, modules=modules, phase=phase, candidate=candidate)

    def of_dense(self, pruned: str) -> bool:
        """Return whether a pruned network is the dense one's, which methods share."""
        return self.plan.nodes[pruned].arguments.get("parent") == artifact(self.pretrain())

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
        networks = {"runs": [artifact(name) for name in runs]}
        apart = [artifact(name) for name in unaligned]
        return self._prune_again("reprune", networks, phase, average=average, unaligned=apart)

    def interpolate_tickets(self, ticket: str, pool: Sequence[str], phase: int) -> str:
        """Return ``ticket`` interpolated with those of ``pool``, at the phase's sparsity."""
        networks = {"ticket": artifact(ticket), "pool": [artifact(name) for name in pool]}
        return self._prune_again("lottery_pools", networks, phase)

    def _prune_again(self, script: str, networks: dict[str, Any], phase: int, **more: Any) -> str:
        """Add a stage that prunes what it makes of ``networks`` to the phase's sparsity."""
        flags = {
            "data": artifact(self.data()),
            **networks,
            "sparsity": self.sparsity(phase),
            **self._pruning_flags(phase),
            "seed": self._pruning_seed(phase),
            **more,
        }
        files, modules = self._pruning_files(), (*self._pruning_modules(), *self.learning_modules())
        name = join_name(self.method, f"p{phase}")
        return self.add(name, script, flags, files=files, modules=modules, phase=phase)

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

    def _candidate(self, candidate: int) -> tuple[Retrain, Any, Any]:
        """Return the settings of a candidate, its weight decay, and its peak rate if it has one."""
        retrain, decay = self.settings.retrain, self.settings.pretrain.weight_decay
        if not candidate or retrain.vary == "seed":
            return retrain, decay, None
        value = self.settings.retrain_values()[candidate - 1]
        if retrain.vary == "weight_decay":
            return retrain, value, None
        if retrain.vary == "learning_rate":  # the paper varies that of a linear schedule
            return retrain.model_copy(update={"schedule": "LLR"}), decay, value
        if retrain.vary == "epochs":
            value = int(value)
        return retrain.model_copy(update={retrain.vary: value}), decay, None

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
        data = {"data": artifact(self.data())} if prune.allocation in COSTED else {}
        return {"criterion": prune.criterion, "allocation": prune.allocation, **data}

    def _pruning_files(self) -> tuple[str, ...]:
        """Return the table that an allocation by costs reads."""
        file = COSTED.get(self.settings.prune.allocation)
        return (file,) if file else ()

    def _pruning_modules(self) -> tuple[str, ...]:
        """Return the modules of the criterion and the allocation that the structure uses."""
        prune = self.settings.prune
        if prune.structure == "filters":
            return ()
        criterion = self.plan.once(module_name, "criteria", prune.criterion)
        if parse(prune.structure):
            return (criterion,)
        return criterion, self.plan.once(module_name, "allocations", prune.allocation)
