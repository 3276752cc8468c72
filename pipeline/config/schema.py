"""The groups of keys of params.yaml and recipes: what each key means, its type and its bounds."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.sparsify.config import SparsifyConfig

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Sparsity = Annotated[float, Field(gt=0, lt=1)]  # the fraction of the weights that is pruned


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
    """How the dense network is trained; retraining keeps what does not concern its length and rate.

    ``milestones`` and ``warmup`` are fractions of the whole training. 0 epochs take the network's
    weights file as it is. ``precision`` bf16 trains in mixed precision; whatever is measured is
    measured in fp32. ``compile`` trains through torch.compile. Without ``deterministic`` a GPU uses
    its fastest kernels, and equal seeds may differ in the last bits.
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
    compile: bool = False
    deterministic: bool = True


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


class Sparsify(Section):
    """How the methods that prune during training do it.

    ``epochs``, null: those of pretraining, is the budget of one training; BIMP spends
    ``dense_share`` of it before its phases. ``sms_start``: the share of the training after which
    SMS's copies may begin. ``from_dense``: GSM and LC start from the dense network. The others are
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


class Evaluate(Section):
    """What is measured beyond the score on the test set; corruptions are for classifiers."""

    corruptions: Literal["none", "final", "all"] = "final"
    corruptions_path: str | None = None
    groups: bool = True


class Paper(Section):
    """The rows of the paper's tables that stand beside ours.

    ``test_examples``: how many the official test split has. ``found``: how many there are here, as
    the report finds out: part of them stands beside no number of the paper. ``pretrained``: whether
    the paper started from pretrained weights; null where it does not say.
    """

    dataset: str
    arch: str
    test_examples: int
    found: int | None = None
    pretrained: bool | None = False
