"""params.yaml and recipes: read, merged, and refused in one sentence when they make no sense.

``params.yaml`` is what a person edits. A value left null there comes from the recipe it names,
one file of ``recipes/``. The two are merged and checked against `Experiment`, below, which
is the only description of what may be set.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline import families
from pipeline.errors import UserError

RECIPES = Path(__file__).parent.parent / "recipes"

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Sparsity = Annotated[float, Field(gt=0, lt=1)]  # the fraction of the weights that is pruned


# What may stand beside prune.structure = filters: what weights have by default, or what it is.
_FILTERS = [("magnitude", "global"), ("magnitude", "uniform")]


class Section(BaseModel):
    """A group of keys; unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Data(Section):
    """The images: a file of ``pipeline/data``, where it finds them, and their size in pixels.

    The size of sentences is how many tokens they have at most.

    ``corrupted`` is the folder in ``path`` where the official corrupted test set is looked for.
    """

    name: str
    path: str | None = None
    corrupted: str | None = None
    size: Annotated[int, Field(ge=8)] | None = None


class Network(Section):
    """A file of ``pipeline/models`` or ``torchvision.NAME``, with an optional weights file."""

    name: str
    weights: str | None = None


class Augmentation(Section):
    """Random crops, flips and rotations of the training images.

    ``resized_crop``: the smallest share of an image's area that is cut out and resized.
    """

    crop_padding: Annotated[int, Field(ge=0)] = 0
    flip: bool = False
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    resized_crop: Annotated[float, Field(gt=0, le=1)] | None = None


class Pretrain(Section):
    """How the dense network is trained; retraining keeps batch size, weight decay and precision.

    ``milestones`` and ``warmup`` are fractions of the whole training. 0 epochs take the network's
    weights file as it is. ``precision`` bf16 trains in mixed precision; whatever is measured is
    measured in fp32.
    """

    epochs: Annotated[int, Field(ge=0)]
    batch_size: Count
    learning_rate: Positive
    weight_decay: NotNegative
    schedule: Literal["constant", "linear", "cosine", "multistep"]
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = []
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip_norm: Positive | None = None
    precision: Literal["fp32", "bf16"] = "fp32"


class Prune(Section):
    """What ranks the weights, and how the sparsity is spread over the layers.

    ``structure`` filters prunes whole filters by their L2 norm, each layer alike; there is nothing
    else to choose then.
    """

    structure: Literal["weights", "filters"] = "weights"
    criterion: str = "magnitude"
    allocation: str = "global"


class Retrain(Section):
    """How each pruned copy is retrained, and what tells the candidates apart."""

    epochs: Count
    schedule: Literal["FT", "LRW", "SLR", "CLR", "LLR", "ALLR"]
    vary: Literal["seed", "weight_decay", "epochs", "learning_rate"] = "seed"
    values: list[Positive] | None = None
    grids: dict[Literal["weight_decay", "epochs", "learning_rate"], list[Positive]] = {}


class Swa(Section):
    """Where methods with SWA start to average, as a fraction of a retraining, and sms_swa's rate.

    Without a start imp_swa averages every epoch and sms_swa those of the last half; without a
    rate sms_swa settles at half of pretraining's.
    """

    start: Annotated[float, Field(ge=0, lt=1)] | None = None
    learning_rate: Positive | None = None


class During(Section):
    """How the methods that prune during training do it.

    ``epochs``, null: those of pretraining, is the budget of one training; BIMP spends
    ``dense_share`` of it before its phases. ``copies_from``: the share of the training after which
    SMS's copies may begin. ``from_dense``: GSM and LC start from the dense network.
    """

    epochs: Count | None = None
    pruning_steps: Count = 9
    copies_from: Annotated[float, Field(ge=0, lt=1)] = 0.55
    dense_share: Annotated[float, Field(gt=0, lt=1)] = 0.67
    from_dense: bool = False
    refresh: Count = 16  # iterations between DPF's masks
    penalty: NotNegative = 1e-3  # LC's, in the first epoch
    alpha: NotNegative = 1e-6  # DST's regulariser
    initial: float = -5.0  # STR's threshold before the sigmoid


class Evaluate(Section):
    """What is measured beyond the score on the test set; corruptions are for classifiers."""

    corruptions: Literal["none", "final", "all"] = "final"
    corruptions_path: str | None = None
    groups: bool = True


Grid = TypeVar("Grid", bound=Section)


class Paper(Section):
    """The rows of the paper's tables that stand beside ours."""

    dataset: str
    arch: str


class Experiment(Section):
    """Everything that decides what is run: the recipe with params.yaml's values over it."""

    recipe: str
    about: str
    task: str = "classification"
    seeds: Annotated[list[Seed], Field(min_length=1)]
    m: Annotated[int, Field(ge=1, le=100)]
    phases: Annotated[int, Field(ge=1, le=100)]
    target_sparsity: Annotated[float, Field(gt=0, lt=1)]
    methods: Annotated[list[str], Field(min_length=1)]
    merge: Annotated[list[str], Field(min_length=1)]
    data: Data
    network: Network
    augmentation: Augmentation
    pretrain: Pretrain
    prune: Prune = Prune()
    retrain: Retrain
    swa: Swa = Swa()
    during: During = During()
    evaluate: Evaluate = Evaluate()
    studies: list[str] = []
    study: dict[str, dict[str, Any]] = {}  # other grids for studies, by name
    paper: Paper | None = None

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        _distinct("seeds", self.seeds)
        _distinct("methods", self.methods)
        _distinct("merge", self.merge)
        _distinct("studies", self.studies)
        for method in self.methods:
            _choice("methods", method, families.names("plan/methods"))
        _choice("task", self.task, families.names("tasks"))
        for rule in self.merge:
            _choice("merge", rule, families.names("soup"))
        for key, named in (("studies", self.studies), ("study", self.study)):
            for study in named:
                _choice(key, study, families.names("plan/studies"))
        _choice("data.name", self.data.name, families.names("data"))
        _choice("prune.criterion", self.prune.criterion, families.names("prune/criteria"))
        _choice("prune.allocation", self.prune.allocation, families.names("prune/allocations"))
        if not self.network.name.startswith("torchvision."):
            known = [*families.names("models"), "torchvision.NAME"]
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

    def changed(self, values: dict[str, Any]) -> Self:
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
    own = _read(path)
    recipe = own.get("recipe")
    _choice("recipe", recipe, sorted(file.stem for file in RECIPES.glob("*.yaml")))
    seed, seeds = own.pop("seed", None), own.pop("seeds", None)
    own["seeds"] = [seed] if seeds is None else seeds
    _refuse_unknown(own, Experiment, path.name, "")
    merged = _merge(_read(RECIPES / f"{recipe}.yaml"), own)
    try:
        return _with_official_corruptions(Experiment.model_validate(merged), path.parent)
    except ValidationError as error:
        raise UserError(_sentence(error, own, path.name)) from None
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from None


def recipes() -> dict[str, str]:
    """Return what each recipe of the folder is about, by name."""
    return {file.stem: _read(file)["about"] for file in sorted(RECIPES.glob("*.yaml"))}


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


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; this loader refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise UserError(
                    f"{self.name}: the key {key} stands twice (line "
                    f"{key_node.start_mark.line + 1}): keep one of them"
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 takes 1e-4 for a word, everybody else for a number.
_UniqueKeys.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.load(file, Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run from the project's folder") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no keys: it must be a mapping such as 'recipe: digits'")
    return content


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
