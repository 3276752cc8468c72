"""Length of the trainings in a plan: epochs, passes counted in epochs, and training examples."""

from pathlib import Path

from safetensors import safe_open

from pipeline.plan.plan import Stage
from pipeline.train import retrain_options

TRAINING = {"pretrain", "retrain", "sparsify"}


def epochs(stage: Stage) -> int:
    """Return the epochs that a stage trains; 0 where it trains nothing."""
    if stage.script not in TRAINING:
        return 0
    flags = stage.arguments
    end: int = flags.get("to_epoch", flags["epochs"])
    begin: int = flags.get("from_epoch", 0)
    return end - begin


def passes_per_step(stage: Stage) -> int:
    """Return the forward-backward passes of one step of a training stage; SAM takes two."""
    return retrain_options.passes(stage.arguments.get("sam", "none"))


def passes(stage: Stage) -> int:
    """Return the passes of a stage, in epochs."""
    return epochs(stage) * passes_per_step(stage)


def training_examples(file: Path) -> int:
    """Return the number of examples in train.safetensors of a prepared data set."""
    with safe_open(file, "numpy") as tensors:
        return int(tensors.get_slice("labels").get_shape()[0])
