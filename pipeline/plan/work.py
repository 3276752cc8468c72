"""The vocabulary in which a method is written down: pretrain, prune, retrain, merge, report.

Every call adds a stage to the graph, or finds the one that does the same work already: phase 1's
pruning is one stage however many methods start from it. Names come from what a stage is, never
from who asked first, so that an artifact keeps its name when m or the list of methods changes:

    s0-dense                  the dense network of seed 0
    s0-p1-prune, s0-p1-c2     phase 1 from the dense network, and its candidate 2
    s0-sms_uniform-p1         the soup of phase 1
    s0-sms_uniform-p2-c0      candidate 0 of phase 2, from that soup
    s0-imp-p2-c1              run 1 of plain IMP in phase 2 (run 0 is IMP, all m are IMP-RePrune's)
"""

from collections.abc import Sequence
from typing import Any

from pipeline.params import Prune
from pipeline.plan.nodes import Node, Plan, Row, artifact
from pipeline.prune.ladder import sparsities
from pipeline.prune.rules import module_name
from pipeline.seeds import derive


class Work:
    """One seed's share of a growing plan."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan, self.seed = plan, seed
        self.start("dense")
        self._settings = plan.params
        self._ladder = sparsities(self._settings.target_sparsity, self._settings.phases)

    def start(self, method: str, lineage: str | None = None) -> None:
        """Plan ``method`` from here on; ``lineage``, by default itself, names its networks."""
        self.method, self._lineage = method, lineage or method

    @property
    def phases(self) -> range:
        """The prune-retrain cycles, counted from 1."""
        return range(1, self._settings.phases + 1)

    @property
    def m(self) -> int:
        """How many candidates make a soup."""
        return self._settings.m

    def sparsity(self, phase: int) -> float:
        """Return the sparsity that the ladder gives to ``phase``; phase 0 is dense."""
        return self._ladder[phase - 1] if phase else 0.0

    def data(self) -> str:
        """Return the prepared data set; all seeds share it."""
        own = self._settings.data
        flags = {"name": own.name, "root": own.path, "size": own.size}
        files = (own.path,) if own.name == "image_folder" and own.path else ()
        modules = (f"pipeline.data.{own.name}",)
        return self._add("data", "prepare", flags, files=files, modules=modules, shared=True)

    def pretrain(self) -> str:
        """Return the trained dense network."""
        own, s = self._settings, self._settings.pretrain
        flags = {
            "data": artifact(self.data()),
            "network": own.network.name,
            "weights": own.network.weights,
            "epochs": s.epochs,
            "schedule": s.schedule,
            "milestones": s.milestones,
            "learning_rate": s.learning_rate,
            "seed": derive(self.seed, "pretrain"),
            **self._training(s.weight_decay),
        }
        files = (own.network.weights,) if own.network.weights else ()
        return self._add(
            "dense", "pretrain", flags, inputs=(self.data(),), files=files, modules=self._network()
        )

    def prune(self, parent: str, phase: int, run: int | None = None) -> str:
        """Return ``parent`` pruned to the sparsity of ``phase``."""
        own = self._settings.prune
        flags = {
            "parent": artifact(parent),
            "phase": phase,
            "sparsity": self.sparsity(phase),
            "criterion": own.criterion,
            "allocation": own.allocation,
        }
        modules = (*_pruning(own), *self._network())
        lineage = "" if parent == self._name("dense") else self._lineage
        name = _join(lineage, f"p{phase}", f"c{run}" if lineage and run is not None else "")
        return self._add(
            f"{name}-prune", "prune", flags, inputs=(parent,), modules=modules, phase=phase
        )

    def retrain(self, pruned: str, phase: int, candidate: int = 0, times: int = 1) -> str:
        """Return candidate ``candidate`` of a pruned network, retrained ``times`` as long."""
        own = self._settings
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
        first = pruned == self._name("p1-prune") and times == 1
        name = _join("" if first else self._lineage, f"p{phase}", f"c{candidate}")
        inputs = (self.data(), self.pretrain(), pruned)
        return self._add(
            name,
            "retrain",
            flags,
            inputs=inputs,
            modules=self._network(),
            phase=phase,
            candidate=candidate,
        )

    def merge(self, candidates: Sequence[str], phase: int, rule: str) -> str:
        """Return the soup of ``candidates``, which share one mask, by ``rule``."""
        flags = {
            "data": artifact(self.data()),
            "candidates": [artifact(name) for name in candidates],
            "rule": rule,
        }
        return self._add(
            _join(self.method, f"p{phase}"),
            "merge",
            flags,
            inputs=(self.data(), *candidates),
            modules=self._network(),
            phase=phase,
        )

    def reprune(self, runs: Sequence[str], phase: int) -> str:
        """Return the average of ``runs``, whose masks differ, pruned to the phase's sparsity."""
        own = self._settings.prune
        flags = {
            "data": artifact(self.data()),
            "runs": [artifact(name) for name in runs],
            "sparsity": self.sparsity(phase),
            "criterion": own.criterion,
            "allocation": own.allocation,
        }
        modules = (*_pruning(own), *self._network())
        return self._add(
            _join(self.method, f"p{phase}"),
            "reprune",
            flags,
            inputs=(self.data(), *runs),
            modules=modules,
            phase=phase,
        )

    def report(self, phase: int, model: str, candidates: Sequence[str] = ()) -> None:
        """Measure ``model`` as the method's result of ``phase``, beside its ``candidates``."""
        data, short = artifact(self.data()), model.removeprefix(f"s{self.seed}-")
        evaluate = self._add(
            f"{short}-eval",
            "evaluate",
            {"data": data, "model": artifact(model), "groups": self._settings.evaluate.groups},
            inputs=(self.data(), model),
            modules=self._network(),
            phase=phase,
        )
        compare = None
        if candidates:
            flags = {
                "data": data,
                "candidates": [artifact(name) for name in candidates],
                "soup": artifact(model),
            }
            compare = self._add(
                f"{short}-compare",
                "compare",
                flags,
                inputs=(self.data(), *candidates, model),
                modules=self._network(),
                phase=phase,
            )
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
                robustness=self._robustness(short, model, phase),
            )
        )

    def _robustness(self, short: str, model: str, phase: int) -> str | None:
        own = self._settings.evaluate
        last = phase in (0, self._settings.phases)
        if own.corruptions == "none" or (own.corruptions == "final" and not last):
            return None
        flags = {"data": artifact(self.data()), "model": artifact(model)}
        inputs: tuple[str, ...] = (self.data(), model)
        if own.corruptions_path:
            flags["corruptions"] = own.corruptions_path
            files: tuple[str, ...] = (own.corruptions_path,)
        else:
            corruptions = self._add(
                "corruptions",
                "corrupt",
                {"data": artifact(self.data())},
                inputs=(self.data(),),
                shared=True,
            )
            flags["corruptions"], files = artifact(corruptions), ()
            inputs = (*inputs, corruptions)
        return self._add(
            f"{short}-ood",
            "robustness",
            flags,
            inputs=inputs,
            files=files,
            modules=self._network(),
            phase=phase,
        )

    def _candidate(self, candidate: int) -> tuple[int, float, str, float | None]:
        """Return epochs, weight decay, schedule and peak learning rate of a candidate."""
        own = self._settings
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
        own, augmentation = self._settings.pretrain, self._settings.augmentation
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
        name = self._settings.network.name
        return () if name.startswith("torchvision.") else (f"pipeline.models.{name}",)

    def _name(self, short: str) -> str:
        return f"s{self.seed}-{short}"

    def _add(  # noqa: PLR0913 - one keyword a field of the node
        self,
        short: str,
        script: str,
        flags: dict[str, Any],
        *,
        inputs: tuple[str, ...] = (),
        files: tuple[str, ...] = (),
        modules: tuple[str, ...] = (),
        shared: bool = False,
        **places: int,
    ) -> str:
        """Add a stage, or find the one that does the same work; return its name."""
        name = short if shared else self._name(short)
        arguments = {flag: value for flag, value in flags.items() if value not in (None, False, [])}
        node = next(
            (
                known
                for known in self.plan.nodes.values()
                if (known.script, known.arguments) == (script, arguments)
            ),
            None,
        )
        if node is None:
            if name in self.plan.nodes:
                raise AssertionError(f"two different stages are called {name}")
            labels = {"kind": script, **{key: str(value) for key, value in places.items()}}
            if not shared:
                labels["seed"] = str(self.seed)
            lineage = next(
                (n for n in (self.method, self._lineage) if short.startswith(f"{n}-p")), ""
            )
            node = Node(name, script, arguments, inputs, files, modules, labels, lineage)
            self.plan.nodes[name] = node
        users = dict.fromkeys([*filter(None, node.labels.get("methods", "").split(","))])
        node.labels["methods"] = ",".join([*users, *({self.method} - users.keys())])
        return node.name


def _pruning(prune: Prune) -> tuple[str, str]:
    """Return the modules of the criterion and the allocation."""
    criterion = module_name("criteria", prune.criterion)
    return criterion, module_name("allocations", prune.allocation)


def _join(*parts: str) -> str:
    return "-".join(part for part in parts if part)
