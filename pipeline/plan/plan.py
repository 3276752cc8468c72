"""What a plan is made of: nodes (one stage each) and rows (one line of the report each)."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipeline.config.experiment import Experiment

ARTIFACTS = "artifacts/"
T = TypeVar("T")


@dataclass
class Stage:
    """One stage of the graph: a script with its arguments, which turns artifacts into one more.

    Two nodes with equal ``script``, ``arguments`` and ``inputs`` are the same work.
    """

    name: str
    script: str  # retrain: stages/retrain.py
    arguments: dict[str, Any]  # flag -> value, list of values, or True for a bare flag
    inputs: tuple[str, ...]  # names of the nodes whose artifacts it reads
    files: tuple[str, ...] = ()  # data outside the graph that it reads
    modules: tuple[str, ...] = ()  # modules that the script imports by name at run time
    labels: dict[str, str] = field(default_factory=dict)  # kind, seed, phase, candidate, methods
    lineage: str = ""  # the section of the graph it is listed under
    study: str = ""  # the study that asked for it, where no method did
    unwatched: tuple[str, ...] = ()  # data outside the graph that it reads, but DVC does not hash

    @property
    def out(self) -> str:
        """The folder that the stage writes."""
        return artifact(self.name)


@dataclass(frozen=True)
class Result:
    """One line of the report: what a method has after a phase, and where it was measured."""

    method: str
    phase: int  # 0: the dense network
    seed: int
    sparsity: float
    model: str
    candidates: tuple[str, ...]
    evaluate: str
    compare: str | None
    robustness: str | None
    shrink: str | None = None  # where its filters are removed
    is_soup: bool = False  # whether the model is a merge of the candidates, which share one mask


@dataclass(frozen=True)
class StudyResult:
    """One measurement of a study: a network, the values that tell it apart, and where it lies."""

    study: str
    seed: int
    values: dict[str, Any]  # what the study varied: {"sparsity": 0.9, "epochs": 5}
    method: str
    phase: int
    model: str
    candidates: tuple[str, ...]  # what the model was averaged from
    nodes: dict[str, str]  # further stages with metrics, by what they measure
    is_soup: bool = False  # as a row's


@dataclass(frozen=True)
class Plan:
    """The whole graph of an experiment, in an order in which every input comes first."""

    params: Experiment
    nodes: dict[str, Stage] = field(default_factory=dict)
    rows: list[Result] = field(default_factory=list)
    points: list[StudyResult] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)  # lineage -> what its stages are
    lineages: set[str] = field(default_factory=set)  # those of all nodes
    _by_work: dict[Hashable, Stage] = field(default_factory=dict, repr=False)
    _known: dict[Hashable, Any] = field(default_factory=dict, repr=False)
    _places: dict[str, int] = field(default_factory=dict, repr=False)  # artifact -> its place

    def once(self, function: Callable[..., T], *arguments: Hashable) -> T:
        """Return ``function(*arguments)``, computed once a plan: every stage asks for its data."""
        key = (function, *arguments)
        if key not in self._known:
            self._known[key] = function(*arguments)
        known: T = self._known[key]
        return known

    def add(self, node: Stage) -> None:
        """Add a stage whose inputs are there already."""
        if node.name in self.nodes:
            raise AssertionError(f"two different stages are called {node.name}")
        self._places[node.out] = len(self.nodes)
        self.nodes[node.name] = node
        self.lineages.add(node.lineage)
        self._by_work[_work(node.script, node.arguments)] = node

    def is_soup(self, model: str) -> bool:
        """Return whether ``model`` is a merge of candidates that share one mask."""
        return self.nodes[model].script == "merge"

    def find(self, script: str, arguments: dict[str, Any]) -> Stage | None:
        """Return the stage that does just this work, if there is one."""
        return self._by_work.get(_work(script, arguments))

    def inputs(self, arguments: dict[str, Any]) -> tuple[str, ...]:
        """Return the stages whose artifacts ``arguments`` name, in the order of the plan."""
        values = [value if isinstance(value, list) else [value] for value in arguments.values()]
        words = {str(item) for items in values for item in items}
        read = sorted(words & self._places.keys(), key=self._places.__getitem__)
        return tuple(word.removeprefix(ARTIFACTS) for word in read)


def _work(script: str, arguments: dict[str, Any]) -> Hashable:
    """Return a key that is equal for equal work, in whatever order the arguments stand."""
    pairs = ((flag, tuple(v) if isinstance(v, list) else v) for flag, v in arguments.items())
    return script, frozenset(pairs)


def artifact(name: str) -> str:
    """Return the folder that holds the artifact of the node ``name``."""
    return ARTIFACTS + name
