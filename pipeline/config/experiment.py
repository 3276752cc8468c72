"""params.yaml and recipes: read, merged, and refused in one sentence when they make no sense.

``params.yaml`` is what a person edits. A value left null there comes from the recipe it names,
one file of ``recipes/``. The two are merged and checked against `Experiment`, below, and its
sections (pipeline/config/schema.py), which alone describe what may be set.
"""

from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from pipeline import registry
from pipeline.config.schema import (
    Augmentation,
    Data,
    Evaluate,
    Network,
    Paper,
    Pretrain,
    Prune,
    Retrain,
    Section,
    Seed,
    Sparsify,
    Sparsity,
    Swa,
)
from pipeline.config.yaml_file import read
from pipeline.errors import UserError

RECIPES = Path(__file__).parents[2] / "recipes"

# What may stand beside prune.structure = filters: what weights have by default, or what it is.
_FILTERS = [("magnitude", "global"), ("magnitude", "uniform")]

Grid = TypeVar("Grid", bound=Section)


class Experiment(Section):
    """Everything that decides what is run: the recipe with params.yaml's values over it."""

    recipe: str
    about: str
    task: str = "classification"
    seeds: Annotated[list[Seed], Field(min_length=1)]
    m: Annotated[int, Field(ge=1, le=100)]
    phases: Annotated[int, Field(ge=1, le=100)]
    target_sparsity: Sparsity
    methods: Annotated[list[str], Field(min_length=1)]
    merge: Annotated[list[str], Field(min_length=1)]
    data: Data
    network: Network
    augmentation: Augmentation
    pretrain: Pretrain
    prune: Prune = Prune()
    retrain: Retrain
    swa: Swa = Swa()
    sparsify: Sparsify = Sparsify()
    evaluate: Evaluate = Evaluate()
    studies: list[str] = Field(default_factory=list)
    study: dict[str, dict[str, Any]] = Field(default_factory=dict)  # other grids, by study
    paper: Paper | None = None

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        _distinct("seeds", self.seeds)
        _distinct("methods", self.methods)
        _distinct("merge", self.merge)
        _distinct("studies", self.studies)
        for method in self.methods:
            _choice("methods", method, registry.names("plan/methods"))
        _choice("task", self.task, registry.names("tasks"))
        for rule in self.merge:
            _choice("merge", rule, registry.names("soup"))
        for key, named in (("studies", self.studies), ("study", self.study)):
            for study in named:
                _choice(key, study, registry.names("plan/studies"))
        _choice("data.name", self.data.name, registry.names("data"))
        _choice("prune.criterion", self.prune.criterion, registry.names("prune/criteria"))
        _choice("prune.allocation", self.prune.allocation, registry.names("prune/allocations"))
        if not self.network.name.startswith("torchvision."):
            known = [*registry.names("models"), "torchvision.NAME"]
            _choice("network.name", self.network.name, known)
        own = (self.prune.criterion, self.prune.allocation)
        if self.prune.structure == "filters" and own not in _FILTERS:
            raise UserError(
                f"prune.structure is filters, which ranks by L2 norm, each layer alike, but "
                f"prune asks for {' and '.join(own)}: leave criterion and allocation as they were"
            )
        if not (self.pretrain.epochs or self.network.weights):
            raise UserError(
                "pretrain.epochs is 0, but network.weights is null: name a file of trained weights"
            )
        self.retrain_values()
        return self

    def with_values(self, values: dict[str, Any]) -> Self:
        """Return a copy with other ``values``, by key, as ``{"retrain.epochs": 5}``.

        Raises:
            UserError: a value is impossible.
        """
        changed = self.model_dump()
        for key, value in values.items():
            *sections, last = key.split(".")
            target = changed
            for section in sections:
                target = target[section]
            target[last] = value
        try:
            return self.model_validate(changed)
        except ValidationError as error:
            raise UserError(_sentence(error, changed, "the study")) from None

    def grid(self, study: str, kind: type[Grid]) -> Grid:
        """Return what ``study`` varies: the defaults of ``kind`` and over them ``study.NAME``.

        Raises:
            UserError: naming the key, its value and what is allowed.
        """
        own = {key: value for key, value in self.study.get(study, {}).items() if value is not None}
        _refuse_unknown(own, kind, "params.yaml", f"study.{study}.")
        try:
            return kind.model_validate(own)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in (study, *first["loc"]))
            need = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            raise UserError(
                f"params.yaml: study.{key} is {first['input']!r}, but must be {need}"
            ) from None

    def retrain_values(self) -> list[float]:
        """Return what ``retrain.vary`` is for candidates 1, 2, ...

        Candidate 0 is always the recipe's own setting, so that it is IMP's candidate too; the
        others take ``retrain.values``, or the recipe's grid, in order and without that setting.
        """
        vary = self.retrain.vary
        if vary == "seed":
            if self.retrain.values is not None:
                raise UserError(
                    f"retrain.values is {self.retrain.values}, but retrain.vary is seed, which "
                    "takes none: leave it null, or name what varies"
                )
            return []
        values = self.retrain.values or self.retrain.grids.get(vary, [])
        if vary == "epochs" and any(value != int(value) for value in values):
            raise UserError(f"retrain.values is {values}, but epochs are whole numbers")
        own = self.retrain_value(vary)
        others = [value for value in values if value != own]
        if len(others) < self.m - 1:
            raise UserError(
                f"retrain.values has {len(others)} values beside the recipe's {vary} {own:g}, but "
                f"m = {self.m} needs {self.m - 1}: list more values or lower m"
            )
        return others[: self.m - 1]

    def warnings(self) -> list[str]:
        """Return a sentence for every setting that does not do what its name says."""
        if self.pretrain.epochs or self.retrain.schedule != "ALLR":
            return []
        return [
            "retrain.schedule is ALLR, which compares a retraining's length with pretrain.epochs, "
            "but these are 0: it starts at pretrain.learning_rate like LLR"
        ]

    def retrain_value(self, vary: str) -> float:
        """Return the recipe's own setting of what ``retrain.vary`` may name, but for the seed."""
        return {
            "weight_decay": self.pretrain.weight_decay,
            "epochs": self.retrain.epochs,
            "learning_rate": self.pretrain.learning_rate,
        }[vary]


def load(path: Path) -> Experiment:
    """Read ``params.yaml`` and the recipe it names, and check them together.

    Raises:
        UserError: naming the key, its value and what is allowed.
    """
    own = read(path)
    recipe = own.get("recipe")
    _choice("recipe", recipe, sorted(file.stem for file in RECIPES.glob("*.yaml")))
    seed, seeds = own.pop("seed", None), own.pop("seeds", None)
    own["seeds"] = [seed] if seeds is None else seeds
    _refuse_unknown(own, Experiment, path.name, "")
    merged = _merge(read(RECIPES / f"{recipe}.yaml"), own)
    try:
        return _with_official_corruptions(Experiment.model_validate(merged), path.parent)
    except ValidationError as error:
        raise UserError(_sentence(error, own, path.name)) from None
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from None


def recipes() -> dict[str, str]:
    """Return what each recipe of the folder is about, by name."""
    return {file.stem: read(file)["about"] for file in sorted(RECIPES.glob("*.yaml"))}


def _with_official_corruptions(experiment: Experiment, root: Path) -> Experiment:
    """Fill ``evaluate.corruptions_path`` where the recipe's official set lies in its place."""
    data, evaluate = experiment.data, experiment.evaluate
    if evaluate.corruptions_path or not (data.path and data.corrupted):
        return experiment
    official = Path(data.path, data.corrupted)
    if not (root / official).is_dir():
        return experiment
    found = evaluate.model_copy(update={"corruptions_path": official.as_posix()})
    return experiment.model_copy(update={"evaluate": found})


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with every value of ``over`` that is not null put over it, key by key."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict):
            merged[key] = _merge(merged.get(key) or {}, value)
        elif value is not None:
            merged[key] = value
    return merged


def _refuse_unknown(
    values: dict[str, Any], section: type[BaseModel], file: str, prefix: str
) -> None:
    """Refuse keys that no section knows, null ones too, and suggest what exists."""
    for key, value in values.items():
        field = section.model_fields.get(key)
        if field is None:
            known = ", ".join([*section.model_fields] + ([] if prefix else ["seed"]))
            raise UserError(f"{file}: the key {prefix}{key} is unknown: use one of {known}")
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section) and value is not None:
            if not isinstance(value, dict):
                raise UserError(f"{file}: {prefix}{key} is {value!r}, but must hold keys")
            _refuse_unknown(value, inner, file, f"{prefix}{key}.")


def _choice(key: str, value: object, known: list[str]) -> None:
    if value not in known:
        raise UserError(f"{key} is {value!r}, but must be one of {', '.join(known)}")


def _distinct(key: str, values: list[Any]) -> None:
    if len(set(values)) < len(values):
        raise UserError(f"{key} is {values}, but names one of them twice")


def _sentence(error: ValidationError, own: dict[str, Any], file: str) -> str:
    """Say the first thing pydantic found as one sentence: file, key, value, what is allowed."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    here: Any = own
    for part in path:
        here = here.get(part) if isinstance(here, dict) else here
    source = file if here is not None or first["type"] == "missing" else "its recipe"
    if first["type"] == "missing":
        return f"{file}: {key} has no value, neither here nor in the recipe: give it one"
    need = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{source}: {key} is {first['input']!r}, but must be {need}"
