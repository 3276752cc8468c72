"""Settings of a training: the optimiser, the precision, the augmentation and the kernels.

Each is defined here once: the stages' flags and the planner's commands are read off these fields.
Bounds and meanings of the keys of params.yaml are in pipeline/config/schema.py.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal

Precision = Literal["fp32", "tf32", "bf16"]


def flag(kind: type, about: str, *choices: str) -> dict[str, Any]:
    """Return the metadata of a field that is a flag of the training stages."""
    return {"type": kind, "about": about, "choices": choices or None}


@dataclass(frozen=True)
class Augmentation:
    """RandomCrop(size, padding), RandomHorizontalFlip(), RandomRotation(degrees), in that order.

    Attributes: crop_padding, black pixels added on each side before the crop; flip, whether half
    of the images are mirrored; rotation, the largest angle in degrees, either way (nearest pixel,
    black outside). These three move pixels without changing them (pipeline/train/augment.py).
    resized_crop, the smallest fraction of an image's area that is cut out and resized, is applied
    where compressed images are decoded (pipeline/train/random_resized_crop.py).
    Source: the data augmentation of the paper, Appendix A; torchvision's PIL transforms.
    """

    crop_padding: int = field(default=0, metadata=flag(int, "pixels"))
    flip: bool = field(default=False, metadata=flag(bool, "half of the images"))
    rotation: float = field(default=0.0, metadata=flag(float, "largest angle, in degrees"))
    resized_crop: float | None = field(
        default=None, metadata=flag(float, "smallest fraction of an image's area")
    )


@dataclass(frozen=True)
class Settings:
    """SGD (Nesterov iff weight decay > 0) on a criterion's loss.

    Attributes: weight_decay, on all parameters; clip_norm, the largest norm of the gradient;
    precision, of products and convolutions on a GPU: "fp32", "tf32" (inputs rounded to 10 bits of
    mantissa), or "bf16", which computes outputs and their gradients in bfloat16 where autocast
    allows it and keeps weights, gradients and statistics in float32 (the rest as "tf32"); compile,
    whether to spend up to half a minute on `torch.compile`, which only long trainings earn back, or
    those whose code is cached on the disk; deterministic, whether a GPU uses only kernels that give
    equal bits for equal seeds; graph, whether steps are captured as CUDA graphs where they can be
    (pipeline/train/cuda_graph.py), which changes no bit; plain_batchnorm, whether the statistics of
    BatchNorm are re-estimated on images without augmentation (pipeline/train/batchnorm.py).
    """

    batch_size: int = field(metadata=flag(int, "examples a step"))
    weight_decay: float = field(metadata=flag(float, "of all parameters"))
    momentum: float = 0.9
    label_smoothing: float = field(default=0.0, metadata=flag(float, "in [0, 1)"))
    clip_norm: float | None = field(
        default=None, metadata=flag(float, "largest norm of the gradient")
    )
    precision: Precision = field(
        default="fp32",
        metadata=flag(str, "of products and convolutions on a GPU", "fp32", "tf32", "bf16"),
    )
    compile: bool = field(default=False, metadata=flag(bool, "the network, by torch.compile"))
    deterministic: bool = field(default=True, metadata=flag(bool, "a GPU's fastest kernels"))
    augmentation: Augmentation = field(default_factory=Augmentation)
    plain_batchnorm: bool = field(
        default=False, metadata=flag(bool, "BatchNorm is re-estimated without augmentation")
    )
    graph: bool = True


def training_options(*classes: type) -> list["Field[Any]"]:
    """Return the fields of ``classes`` (by default of both) that are flags of the stages."""
    owners = classes or (Settings, Augmentation)
    return [option for owner in owners for option in fields(owner) if option.metadata]


def flag_name(option: "Field[Any]") -> str:
    """Return the name of the flag, in underscores; ``non...`` turns off what is on by default."""
    return f"non{option.name}" if option.default is True else option.name


def flag_values(values: Mapping[str, Any], *classes: type) -> dict[str, Any]:
    """Return the flags, by name, that give the fields these ``values``; defaults are left out."""
    return {
        flag_name(option): option.metadata["type"] is bool or values[option.name]
        for option in training_options(*classes)
        if option.default is MISSING or values[option.name] != option.default
    }


def field_values(owner: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ``owner`` that the flags ``given``, by name, stand for."""
    values = {option: given[flag_name(option)] for option in training_options(owner)}
    return {
        option.name: not value if option.default is True else value
        for option, value in values.items()
    }
