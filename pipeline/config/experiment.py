"""params.yaml and its recipe, merged into one checked `Experiment`.

``params.yaml`` is the file that people edit. A value left null there comes from the recipe it
names, one file of ``recipes/``. `Experiment` and its sections (pipeline/config/schema.py) are the
only description of the keys; pipeline/config/validation.py words the refusals.
"""

from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from pipeline import code_files, registry
from pipeline.config import members
from pipeline.config.pattern import check_pattern, with_pattern
from pipeline.config.retraining import check_options, varied_values
from pipeline.config.schema import (
    Augmentation,
    Count,
    Data,
    Ema,
    Evaluate,
    Network,
    Paper,
    Pretrain,
    Prune,
    Retrain,
    Rewind,
    Section,
    Seed,
    Sparsify,
    Sparsity,
    Swa,
)
from pipeline.config.validation import (
    check_choice,
    check_distinct,
    dotted,
    refuse_lengths,
    refuse_renamed,
    refuse_unknown,
    sentence,
)
from pipeline.config.yaml_file import read
from pipeline.errors import UserError
from pipeline.export.selection import FORMATS, select
from pipeline.prune.pattern import check_ranking

RECIPES = Path(__file__).parents[2] / "recipes"
YAML = (".yaml", ".yml")

Grid = TypeVar("Grid", bound=Section)


class Experiment(Section):
    """All settings of a run: the recipe's values with those of params.yaml over them."""

    recipe: str
    about: str
    task: str = "classification"
    seeds: Annotated[list[Seed], Field(min_length=1)]
    m: Annotated[int, Field(ge=1, le=100)]
    phases: Annotated[int, Field(ge=1, le=100)]
    target_sparsity: Sparsity
    budget: Count | None = None
    methods: Annotated[list[str], Field(min_length=1)]
    merge: Annotated[list[str], Field(min_length=1)]
    data: Data
    network: Network
    augmentation: Augmentation
    pretrain: Pretrain
    prune: Prune = Prune()
    retrain: Retrain
    swa: Swa = Swa()
    ema: Ema = Ema()
    rewind: Rewind = Rewind()
    sparsify: Sparsify = Sparsify()
    evaluate: Evaluate = Evaluate()
    export: list[str] = Field(default_factory=list)
    studies: list[str] = Field(default_factory=list)
    study: dict[str, dict[str, Any]] = Field(default_factory=dict)  # values of grids, by study
    paper: Paper | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_form_of_paths(cls, values: Any) -> Any:
        return members.in_one_form(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        check_distinct("seeds", self.seeds)
        check_distinct("methods", self.methods)
        check_distinct("merge", self.merge)
        check_distinct("studies", self.studies)
        check_distinct("export", self.export)
        for method in self.methods:
            check_choice("methods", method, registry.names("plan/methods"))
        for folder, name in self._members():
            members.check(folder, name)
        members.check_labels(self.merge, "soup")
        for name in self.export:
            check_choice("export", name, registry.names(FORMATS))
        select(self.export, self.task)
        for key, named in (("studies", self.studies), ("study", self.study)):
            for study in named:
                check_choice(key, study, registry.names("plan/studies"))
        prune = self.prune
        check_ranking(prune.structure, prune.criterion, prune.allocation, "prune.")
        check_pattern(prune, self.target_sparsity, self.phases)
        if not (self.pretrain.epochs or self.network.weights):
            raise UserError(
                "pretrain.epochs is 0, but network.weights is null: name a file of trained weights"
            )
        check_options(self)
        self.retrain_values()
        return self

    def _members(self) -> list[tuple[str, str]]:
        """Return the family and the name, or path, of each member that the settings name."""
        return [
            ("tasks", self.task),
            *(("soup", rule) for rule in self.merge),
            ("data", self.data.name),
            ("prune/criteria", self.prune.criterion),
            ("prune/allocations", self.prune.allocation),
            ("models", self.network.name),
        ]

    @property
    def code(self) -> list[str]:
        """The files of code that the settings name by their paths."""
        paths = [
            registry.split(*each)[0] for each in self._members() if code_files.is_path(each[1])
        ]
        return list(dict.fromkeys(paths))

    @property
    def recipe_name(self) -> str:
        """The recipe's name for readers: its own, or that of its file."""
        return Path(self.recipe).stem if _is_file(self.recipe) else self.recipe

    def with_values(self, values: dict[str, Any], source: str = "a study") -> Self:
        """Return a copy with other ``values``, by key, as ``{"retrain.epochs": 5}``.

        An error names the ``source`` of the values.

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
            sources = (source, "params.yaml")
            raise UserError(sentence(error, type(self), changed, sources)) from None
        except UserError as error:
            raise UserError(f"{source}: {error}") from None

    def grid(self, study: str, kind: type[Grid]) -> Grid:
        """Return what ``study`` varies: the defaults of ``kind`` and over them ``study.NAME``.

        Raises:
            UserError: naming the key, its value and what is allowed.
        """
        values = self.study.get(study, {})
        values = {key: value for key, value in values.items() if value is not None}
        refuse_unknown(values, kind, "params.yaml", f"study.{study}.")
        for key, value in values.items():
            if value == []:
                raise UserError(f"study.{study}.{key} is [], but must name at least one value")
        try:
            grid = kind.model_validate(values)
        except ValidationError as error:
            sources = ("params.yaml", recipe_file(self.recipe)[1])
            raise UserError(sentence(error, kind, values, sources, f"study.{study}.")) from None
        for key, value in grid:
            if isinstance(value, list):
                check_distinct(f"study.{study}.{key}", value)
        return grid

    def retrain_values(self) -> list[float | str]:
        """Return what ``retrain.vary`` is for candidates 1, 2, ..."""
        return varied_values(self)

    def warnings(self) -> list[str]:
        """Return a sentence for every setting that does not do what its name says."""
        if self.pretrain.epochs or self.retrain.schedule != "ALLR":
            return []
        return [
            "retrain.schedule is ALLR, which compares a retraining's length with pretrain.epochs, "
            "but these are 0: it starts at pretrain.learning_rate like LLR"
        ]


def load(path: Path) -> Experiment:
    """Read ``params.yaml`` and the recipe it names, and check them together.

    Raises:
        UserError: naming the key, its value and what is allowed.
    """
    values = _read(path, path.name)
    _check_recipe(f"{path.name}: recipe", values.get("recipe"))
    file, recipe = recipe_file(values["recipe"])
    defaults = _read(file, recipe)
    merged = with_pattern(_merge(defaults, values), defaults, values)
    refuse_lengths(values, merged.get("budget"), path.name)
    try:
        return _with_official_corruptions(Experiment.model_validate(merged), path.parent)
    except ValidationError as error:
        text = sentence(error, Experiment, values, (path.name, recipe))
        raise UserError(text.replace(" seeds.0 is ", " seed is ")) from None
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from None


def _read(path: Path, name: str) -> dict[str, Any]:
    """Return the values of params.yaml or a recipe, its keys checked and ``seed`` as ``seeds``."""
    values = read(path, name)
    refuse_renamed(dotted(values), name)
    refuse_unknown(values, Experiment, name)
    seed = values.pop("seed", None)
    if values.get("seeds") is None and seed is not None:
        values["seeds"] = [seed]
    return values


def recipe_file(recipe: str) -> tuple[Path, str]:
    """Return the file of a recipe, and its name in messages; the recipe is a name or a path."""
    if _is_file(recipe):
        return code_files.locate(recipe), recipe
    return RECIPES / f"{recipe}.yaml", f"recipes/{recipe}.yaml"


def _is_file(recipe: str) -> bool:
    return "/" in recipe or recipe.endswith(YAML)


def _check_recipe(key: str, recipe: Any) -> None:
    """Refuse a recipe that does not exist, or a file with the name of one of ours."""
    names = [file.stem for file in _recipe_files()]
    if not (isinstance(recipe, str) and _is_file(recipe)):
        check_choice(key, recipe, names, [*names, "a path FILE.yaml"])
    elif (problem := members.path_problem(recipe, YAML)) is not None:
        raise UserError(f"{key} is {recipe!r}, but {problem}")
    elif Path(recipe).stem in names and recipe_file(recipe)[0].parent != RECIPES:
        raise UserError(
            f"{key} is {recipe!r}, but recipes/ has one of that name too, so that results of the "
            "two could not be told apart: rename yours"
        )


def recipes() -> dict[str, str]:
    """Return what each recipe of the folder is about, by name."""
    return {file.stem: _read(file, f"recipes/{file.name}")["about"] for file in _recipe_files()}


def _recipe_files() -> list[Path]:
    return sorted(RECIPES.glob("*.yaml"))


def _with_official_corruptions(experiment: Experiment, root: Path) -> Experiment:
    """Fill ``evaluate.corruptions_path`` where the recipe's official set lies in its place."""
    data, evaluate = experiment.data, experiment.evaluate
    if evaluate.corruptions_path or not (data.path and data.corrupted):
        return experiment
    official = Path(data.path, data.corrupted)
    if not (root / official).is_dir():
        return experiment
    evaluate = evaluate.model_copy(update={"corruptions_path": official.as_posix()})
    return experiment.model_copy(update={"evaluate": evaluate})


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with every value of ``over`` that is not null put over it, key by key."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict):
            below = merged.get(key)
            merged[key] = _merge(below if isinstance(below, dict) else {}, value)
        elif value is not None:
            merged[key] = value
    return merged
