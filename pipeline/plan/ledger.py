"""The book in which a plan's stages are entered: each piece of work once, under a lasting name.

Names come from what a stage is, never from who asked first, so that an artifact keeps its name
when m or the list of methods changes:

    s0-dense                  the dense network of seed 0
    s0-p1-prune, s0-p1-c2     phase 1 from the dense network, and its candidate 2
    s0-sms_uniform-p1         the soup of phase 1
    s0-sms_uniform-p2-c0      candidate 0 of phase 2, from that soup
    s0-imp-p2-c1              run 1 of plain IMP in phase 2 (run 0 is IMP, all m are IMP-RePrune's)
"""

from typing import Any

from pipeline.config.experiment import Experiment
from pipeline.plan.plan import Plan, Stage


class Ledger:
    """One seed's share of a growing plan.

    Args:
        plan: what is added to.
        seed: of everything random in it.
        params: the settings; those of the plan unless a study varies them.
        variant: what the study calls these settings, in the names of the stages they change.
    """

    def __init__(
        self, plan: Plan, seed: int, params: Experiment | None = None, variant: str = ""
    ) -> None:
        self.plan, self.seed, self.variant = plan, seed, variant
        self.settings = params or plan.params
        self.set_method("dense")

    def set_method(self, method: str, lineage: str | None = None) -> None:
        """Plan ``method`` from here on; ``lineage``, by default itself, names its networks."""
        self.method, self.lineage = method, lineage or method

    def name(self, *parts: str, shared: bool = False) -> str:
        """Return the name of a stage: the seed, unless all ``shared`` it, and what is not empty."""
        return join_name(*parts) if shared else join_name(f"s{self.seed}", self.variant, *parts)

    def add(
        self,
        short: str,
        script: str,
        flags: dict[str, Any],
        *,
        files: tuple[str, ...] = (),
        modules: tuple[str, ...] = (),
        shared: bool = False,
        **places: int,
    ) -> str:
        """Add a stage, or find the one that does the same work; return its name.

        Args:
            short: its name without the seed.
            script: the file of stages/ that does it.
            flags: what it is told; None, False and [] are left out. It reads the artifacts of
                the stages that are named here.
            files: data outside the graph that it reads.
            modules: modules that it imports by a name in ``flags``.
            shared: whether all seeds share it.
            places: where it stands: phase, candidate.
        """
        # By identity: 0 equals False, but is a value.
        arguments = {
            flag: value
            for flag, value in flags.items()
            if not (value is None or value is False or value == [])
        }
        node = self.plan.find(script, arguments)
        if node is None:
            name = self.name(short, shared=shared)
            labels = {"kind": script, **{key: str(value) for key, value in places.items()}}
            if not shared:
                labels["seed"] = str(self.seed)
            lineage = next(
                (n for n in (self.method, self.lineage) if short.startswith(f"{n}-p")), ""
            )
            inputs = self.plan.inputs(arguments)
            node = Stage(name, script, arguments, inputs, files, modules, labels, lineage)
            self.plan.add(node)
        users = dict.fromkeys([*filter(None, node.labels.get("methods", "").split(","))])
        node.labels["methods"] = ",".join([*users, *({self.method} - users.keys())])
        return node.name


def join_name(*parts: str) -> str:
    """Return the name that consists of all ``parts`` which are not empty."""
    return "-".join(part for part in parts if part)
