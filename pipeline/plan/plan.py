"""The plan: stages, the results they give to the report, and the results of studies."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipeline.config.experiment import Experiment

ARTIFACTS = "artifacts/"
T = TypeVar("T")


@dataclass
class Stage:
    """One stage of the graph: a script with its arguments, which reads artifacts and writes one.

    Stages with equal ``script`` and ``arguments`` do the same work.
    """

    name: str
    script: str  # retrain: stages/retrain.py
    arguments: dict[str, Any]  # flag -> value, list of values, or True for a bare flag
    inputs: tuple[str, ...]  # names of the stages whose artifacts it reads
    files: tuple[str, ...] = ()  # data outside the graph that it reads
    modules: tuple[str, ...] = ()  # modules that the script imports by name at run time
    labels: dict[str, str] = field(default_factory=dict)  # kind, seed, phase, candidate, methods
    lineage: str = ""  # the section of the graph it is listed under
    study: str = ""  # the study that needs it, where no method does
    unwatched: tuple[str, ...] = ()  # data outside the graph that it reads and DVC does not hash
    outside: tuple[str, ...] = ()  # folders outside the graph that it reads, or fills by a download

    @property
    def out(self) -> str:
        """The folder that the stage writes."""
        return artifact(self.name)


@dataclass(frozen=True)
class Result:
    """One line of the report: a method's network after a phase, and the stages that measure it."""

    method: str
    phase: int  # 0: the dense network
    seed: int
    sparsity: float
    model: str
    candidates: tuple[str, ...]
    evaluate: str
    compare: str | None
    robustness: str | None
    shrink: str | None = None  # the stage that removes its filters
    is_soup: bool = False  # whether the model is a merge of the candidates, which share one mask


@dataclass(frozen=True)
class StudyResult:
    """One result of a study: a network, and the varied values at which it was trained."""

    study: str
    seed: int
    values: dict[str, Any]  # of the settings that vary: {"sparsity": 0.9, "epochs": 5}
    method: str
    phase: int
    model: str
    candidates: tuple[str, ...]  # the networks that the model is the average of
    nodes: dict[str, str]  # further stages with metrics, by the name of the measurement
    is_soup: bool = False  # as of a `Result`


@dataclass(frozen=True)
class Plan:
    """The whole graph of an experiment, in an order in which every input comes first."""

    params: Experiment
    nodes: dict[str, Stage] = field(default_factory=dict)
    rows: list[Result] = field(default_factory=list)
    points: list[StudyResult] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)  # lineage -> a line about its stages
    lineages: set[str] = field(default_factory=set)  # of all stages
    _by_work: dict[Hashable, Stage] = field(default_factory=dict, repr=False)
    _results: dict[Hashable, Any] = field(default_factory=dict, repr=False)
    _places: dict[str, int] = field(default_factory=dict, repr=False)  # artifact -> its position

    def empty(self, params: Experiment) -> "Plan":
        """Return a plan of other ``params`` without stages; it shares the results of `once`."""
        return Plan(params, _results=self._results)

    def once(self, function: Callable[..., T], *arguments: Hashable) -> T:
        """Return ``function(*arguments)``, computed once for the plan."""
        key = (function, *arguments)
        if key not in self._results:
            self._results[key] = function(*arguments)
        result: T = self._results[key]
        return result

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
        """Return the stage that does this work, if there is one."""
        return self._by_work.get(_work(script, arguments))

    def inputs(self, arguments: dict[str, Any]) -> tuple[str, ...]:
        """Return the stages whose artifacts ``arguments`` name, in the order of the plan."""
        values = [value if isinstance(value, list) else [value] for value in arguments.values()]
        words = {str(item) for items in values for item in items}
        read = sorted(words & self._places.keys(), key=self._places.__getitem__)
        return tuple(word.removeprefix(ARTIFACTS) for word in read)


def _work(script: str, arguments: dict[str, Any]) -> Hashable:
    """Return a key that is equal for equal work; the order of the arguments does not count."""
    pairs = ((flag, tuple(v) if isinstance(v, list) else v) for flag, v in arguments.items())
    return script, frozenset(pairs)


def artifact(name: str) -> str:
    """Return the folder that the stage ``name`` writes."""
    return ARTIFACTS + name
