"""The groups of keys of params.yaml and recipes: the meaning, type and bounds of each key."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from pipeline.prune.pattern import valid_structure
from pipeline.sparsify.config import SparsifyConfig, valid_interval
from pipeline.train.retrain_options import Average, RetrainOptions, Sam

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Schedule = Literal["FT", "LRW", "SLR", "CLR", "LLR", "ALLR"]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Sparsity = Annotated[
    float, Field(gt=0, lt=1, description="a fraction of the weights: 0.95 prunes 95 %")
]


def varied_value(value: Any) -> Any:
    """Return a value that ``retrain.vary`` may take: a number, or the name of an option."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and value > 0) and not isinstance(value, str):
        raise ValueError("greater than 0, or the name of an option")
    return value


Vary = Literal[
    "seed", "weight_decay", "epochs", "learning_rate", "average", "sam", "rho", "distill"
]
Varied = Annotated[float | str, BeforeValidator(varied_value)]


def valid_path(value: str) -> str:
    """Return a path that can be a word of a command in stages/dvc.yaml."""
    if not value.isprintable() or "${" in value:
        raise ValueError("a path of printable characters and without ${, which DVC would fill in")
    return value


Location = Annotated[str, AfterValidator(valid_path)]


class Section(BaseModel):
    """A group of keys; unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Data(Section):
    """The data set.

    ``name``: a file of ``pipeline/data``, or a path. ``path``: the folder of its raw files.
    ``size``: pixels a side of images; of sentences, the largest number of tokens. ``corrupted``:
    the folder in ``path`` of the official corrupted test set.
    """

    name: str
    path: Location | None = None
    corrupted: Location | None = None
    size: Annotated[int, Field(ge=8)] | None = None


class Network(Section):
    """The network.

    ``name``: a file of ``pipeline/models``, ``torchvision.NAME``, ``timm.NAME`` or a path.
    ``weights``: a file of weights to start from.
    """

    name: str
    weights: Location | None = None


class Augmentation(Section):
    """Random crops, flips and rotations of the training images.

    ``crop_padding``: pixels of zeros around an image before a crop of its size. ``rotation``: the
    largest angle, in degrees. ``resized_crop``: the smallest share of an image's area that is cut
    out and resized. ``plain_batchnorm`` estimates the statistics of BatchNorm on images without
    augmentation.
    """

    crop_padding: Annotated[int, Field(ge=0)] = 0
    flip: bool = False
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    resized_crop: Annotated[float, Field(gt=0, le=1)] | None = None
    plain_batchnorm: bool = False


class Pretrain(Section):
    """Training of the dense network; retraining shares all but ``epochs`` and the schedule.

    ``milestones`` and ``warmup`` are fractions of the whole training. With 0 ``epochs`` the dense
    network is the file ``network.weights``. ``precision`` fp32 computes in full float32 on a GPU
    too, tf32 with products of 10 bits of mantissa, bf16 in mixed precision; metrics are measured in
    fp32, or in tf32 after a training in tf32 or bf16. ``compile`` trains through torch.compile.
    Without ``deterministic`` a GPU uses its fastest kernels, and equal seeds may differ in the last
    bits.
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
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    compile: bool = False
    deterministic: bool = True


class Prune(Section):
    """Which weights are pruned.

    ``criterion`` ranks them, and ``allocation`` spreads the sparsity over the layers. ``structure``
    filters prunes whole filters by their L2 norm, the same fraction of each layer; criterion and
    allocation then keep their defaults. ``structure`` N:M, such as 2:4, keeps N of every M
    consecutive weights along the input channels; ``allocation`` then keeps its default.
    """

    structure: Annotated[str, BeforeValidator(valid_structure)] = "weights"
    criterion: str = "magnitude"
    allocation: str = "global"


class Retrain(Section):
    """Retraining of each pruned copy, in all methods that retrain.

    ``average``: the weights are averaged over epochs (swa) or steps (ema). ``sam``: sharpness-aware
    minimisation, in two passes a step or in one (s2sam), with a perturbation of norm ``rho``.
    ``distill``: the weight of distillation from the dense network, 0 for none, at a
    ``temperature``. ``vary``: the setting in which candidates differ. ``values``: its values for
    candidates 1, 2, ...; by default those of the recipe in ``grids``.
    """

    epochs: Count
    schedule: Schedule
    average: Average = "none"
    sam: Sam = "none"
    rho: Positive = RetrainOptions.rho
    distill: Annotated[float, Field(ge=0, le=1)] = RetrainOptions.distill
    temperature: Positive = RetrainOptions.temperature
    vary: Vary = "seed"
    values: list[Varied] | None = None
    grids: dict[Literal["weight_decay", "epochs", "learning_rate"], list[Positive]] = {}


class Swa(Section):
    """Stochastic weight averaging: ``retrain.average`` swa, and imp_swa, sms_swa and swamp.

    ``start``: the fraction of a retraining after which epochs are averaged; by default 0, and 0.5
    for sms_swa and swamp. ``learning_rate``: the constant rate from there on; by default the
    schedule's, and half of pretraining's for sms_swa and swamp. imp_swa always keeps the schedule.
    """

    start: Annotated[float, Field(ge=0, lt=1)] | None = None
    learning_rate: Positive | None = None


class Ema(Section):
    """Exponential moving average of the weights: ``retrain.average`` ema.

    ``decay``: of the average, in each step. ``window``: instead of it, the fraction of a
    retraining's steps over which the average reaches back.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    window: Annotated[float, Field(gt=0, le=1)] | None = None


class Rewind(Section):
    """Weight rewinding in the methods rewind, swamp and lottery_pools.

    ``epoch``: the epoch of pretraining to whose weights a pruned network goes back; by default
    pretrain.epochs - retrain.epochs. The epochs that follow it are trained again in every phase.
    """

    epoch: Annotated[int, Field(ge=0)] | None = None


class Sparsify(Section):
    """Pruning during training.

    ``epochs``: the length of one training, by default pretraining's; BIMP spends ``dense_share`` of
    it on the dense network. ``sms_start``: the fraction of the training after which SMS trains m
    copies per interval. ``from_dense``: GSM and LC start from the dense network. The others are
    options of single methods (pipeline/sparsify/config.py).
    """

    epochs: Count | None = None
    pruning_steps: Count = SparsifyConfig.pruning_steps
    sms_start: Annotated[float, Field(ge=0, lt=1)] = 0.55
    dense_share: Annotated[float, Field(gt=0, lt=1)] = 0.67
    from_dense: bool = False
    mask_interval: Annotated[int, Field(ge=0)] = SparsifyConfig.mask_interval
    lc_mu0: NotNegative = SparsifyConfig.lc_mu0
    dst_alpha: NotNegative = SparsifyConfig.dst_alpha
    str_init: float = SparsifyConfig.str_init
    acdc_warmup: Annotated[float, Field(gt=0, lt=1)] = SparsifyConfig.acdc_warmup
    acdc_phase: Annotated[int, Field(ge=0)] = SparsifyConfig.acdc_phase
    acdc_last: Annotated[float, Field(gt=0, lt=1)] = SparsifyConfig.acdc_last
    rigl_alpha: Annotated[float, Field(gt=0, le=1)] = SparsifyConfig.rigl_alpha
    rigl_interval: Annotated[int, AfterValidator(valid_interval)] = SparsifyConfig.rigl_interval
    rigl_end: Annotated[float, Field(gt=0, le=1)] = SparsifyConfig.rigl_end


class Evaluate(Section):
    """Measurements beyond the score on the test set.

    ``corruptions``: whose robustness is measured, of classifiers: no network's, those of the last
    phase, or all. ``corruptions_path``: the folder of an official set. ``groups``: recall by group.
    """

    corruptions: Literal["none", "final", "all"] = "final"
    corruptions_path: Location | None = None
    groups: bool = True


class Paper(Section):
    """The rows of the paper's tables with which results are compared.

    ``test_examples``: the size of the official test split. ``examples_here``: its size in this run,
    which the report fills in; results on a part of it are not compared. ``pretrained``: whether the
    paper started from pretrained weights; null where it does not say.
    """

    dataset: str
    arch: str
    test_examples: int
    examples_here: int | None = None
    pretrained: bool | None = False
