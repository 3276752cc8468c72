"""The settings of a training: the optimiser, the precision and the kernels."""

from dataclasses import dataclass, field
from typing import Literal

from pipeline.train.augment import Augmentation


@dataclass(frozen=True)
class Settings:
    """How to train: SGD (Nesterov iff weight decay > 0) on a criterion's loss.

    Attributes: weight_decay, on all parameters; clip_norm, the largest norm of the gradient;
    precision, "bf16" computes outputs and their gradients in bfloat16 where PyTorch deems it safe,
    and keeps weights, gradients and statistics in float32; compile, whether to spend up to half a
    minute on `torch.compile`, which only long trainings earn back, or those that find the code on
    the disk; deterministic, whether a GPU uses only kernels that give equal bits for equal seeds;
    graph, whether steps are captured as CUDA graphs where they can be
    (pipeline/train/cuda_graph.py), which changes no bit.
    """

    batch_size: int
    weight_decay: float
    momentum: float = 0.9
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    deterministic: bool = True
    graph: bool = True
