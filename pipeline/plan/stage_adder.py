"""Adds stages to the plan, each once, under a stable name.

A name says what a stage is, never who asked for it first, so that an artifact keeps its name when
m or the list of methods changes. Only what two studies plan in different ways, such as the average
of candidates 0 and 1, is named by the first:

    s0-dense                  the dense network of seed 0
    s0-p1-prune, s0-p1-c2     phase 1 from the dense network, and its candidate 2
    s0-sms_uniform-p1         the soup of phase 1
    s0-sms_uniform-p2-c0      candidate 0 of phase 2, from that soup
    s0-imp-p2-c1              run 1 of plain IMP in phase 2 (run 0 is IMP, all m are IMP-RePrune's)
"""

from copy import copy
from typing import Any, Self

from pipeline import registry
from pipeline.plan import raw_data
from pipeline.plan.plan import Plan, Stage


class StageAdder:
    """Adds the stages of one seed, and those of the data set that all seeds share.

    Args:
        plan: the plan that stages are added to.
        seed: the seed of everything random in them.

    Attributes:
        settings: the plan's, unless a study varies them.
        variant: the study's name for its settings, part of the names of the stages they change.
        length: the length of training, where a budget sets it: part of the names of trained stages.
        method: the method whose stages are added.
        lineage: the method after which networks are named.
    """

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan, self.seed = plan, seed
        self.settings = plan.params
        self.variant = self.length = ""
        self.set_method("dense")

    def set_method(self, method: str, lineage: str | None = None) -> None:
        """Plan ``method`` from here on; ``lineage``, by default itself, names its networks."""
        self.method, self.lineage = method, lineage or method

    def any_length(self) -> Self:
        """Return a copy that names stages without the length, on which they do not depend."""
        other = copy(self)
        other.length = ""
        return other

    def name(self, *parts: str, shared: bool = False) -> str:
        """Return the name of a stage: the seed, unless all seeds share it, and its parts."""
        if shared:
            return join_name(*parts)
        return join_name(f"s{self.seed}", self.length, self.variant, *parts)

    def short_name(self, name: str) -> str:
        """Return the name of a stage without its seed and variant."""
        return name.removeprefix(f"{self.name()}-")

    def add(
        self,
        short: str,
        script: str,
        flags: dict[str, Any],
        *,
        files: tuple[str, ...] = (),
        modules: tuple[str, ...] = (),
        shared: bool = False,
        **labels: int,
    ) -> str:
        """Add a stage, or find the one that does the same work; return its name.

        Args:
            short: its name without the seed.
            script: the file of stages/ that does it.
            flags: its command line; None, False and [] are left out. The stage reads the
                artifacts that are named here.
            files: data outside the graph that it reads.
            modules: modules that it imports by a name in ``flags``; those that are files outside
                this package are in its command too, under ``--code``.
            shared: whether all seeds share it.
            labels: its phase and its candidate, where it has them.
        """
        code = list(dict.fromkeys(module for module in modules if module.endswith(".py")))
        flags = {**flags, "code": code}
        arguments = {flag: value for flag, value in flags.items() if _is_given(value)}
        stage = self.plan.find(script, arguments)
        if stage is None:
            stage = Stage(
                name=self.name(short, shared=shared),
                script=script,
                arguments=arguments,
                inputs=self.plan.inputs(arguments),
                files=files,
                modules=modules,
                labels={"kind": script} | {key: str(value) for key, value in labels.items()},
                lineage=self._lineage_of(short),
            )
            if not shared:
                stage.labels["seed"] = str(self.seed)
            self.plan.add(stage)
        methods = [*filter(None, stage.labels.get("methods", "").split(",")), self.method]
        stage.labels["methods"] = ",".join(dict.fromkeys(methods))
        return stage.name

    def data(self) -> str:
        """Return the prepared data set; all seeds share it."""
        data = self.settings.data
        flags = {
            "name": data.name,
            "task": self.settings.task,
            "root": data.path,
            "size": data.size,
        }
        files = (data.path,) if data.name == "image_folder" and data.path else ()
        if not files:
            flags["listing"] = self.plan.once(raw_data.listing, data.name, data.path)
        modules = (self.module("data", data.name, "data.name"),)
        stage = self.add("data", "prepare", flags, files=files, modules=modules, shared=True)
        raw = self.plan.once(raw_data.folder, data.name, data.path)
        self.plan.nodes[stage].outside = (raw,) if raw and not files else ()
        return stage

    def network_modules(self) -> tuple[str, ...]:
        """Return the module of the network, unless it is a library's."""
        name = self.settings.network.name
        if name.startswith(registry.LIBRARIES):
            return ()
        return (self.module("models", name, "network.name"),)

    def learning_modules(self) -> tuple[str, ...]:
        """Return the modules of the network and of the task that it learns."""
        return (*self.network_modules(), self.module("tasks", self.settings.task, "task"))

    def module(self, folder: str, name: str, key: str) -> str:
        """Return the module of a member of a family, which is looked up once for the plan."""
        return self.plan.once(registry.module_name, folder, name, key)

    def _lineage_of(self, short: str) -> str:
        """Return the section of the graph for a stage: that of its method, or the common one."""
        names = (name for name in (self.method, self.lineage) if short.startswith(f"{name}-p"))
        return next(names, "")


def _is_given(value: Any) -> bool:
    """Return whether a flag with ``value`` is on the command line; 0 equals False, but is one."""
    return not (value is None or value is False or value == [])


def join_name(*parts: str) -> str:
    """Return the name that consists of all ``parts`` which are not empty."""
    return "-".join(part for part in parts if part)
