"""Networks by name.

A network is a file of this folder with one function ``build(classes, channels) -> nn.Module``;
``torchvision.NAME`` is any image classifier of torchvision.
"""

import difflib
import importlib

from torch import nn

from pipeline import registry
from pipeline.errors import UserError

# These two return a second, auxiliary output unless told otherwise.
TORCHVISION_OPTIONS = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def names() -> list[str]:
    """Return the names of the networks of this folder."""
    return registry.names("models")


def build(name: str, classes: int, channels: int = 3) -> nn.Module:
    """Return the network ``name`` with random weights, drawn from torch's generator.

    Args:
        name: a file of this folder, or "torchvision.NAME".
        classes: number of logits K; the network maps images [B, channels, H, W] to [B, K].
        channels: of the image; torchvision's networks take 3.

    Raises:
        UserError: there is no such network, or it cannot take that many channels.
    """
    if name.startswith("torchvision."):
        return _from_torchvision(name, classes, channels)
    if name not in names():
        raise _unknown(name, [*names(), "torchvision.NAME"])
    module = importlib.import_module(f"pipeline.models.{name}")
    model: nn.Module = module.build(classes, channels)
    return model


def _from_torchvision(name: str, classes: int, channels: int) -> nn.Module:
    # The import takes 4 s.
    from torchvision import models  # type: ignore[import-untyped]  # noqa: PLC0415

    architecture = name.removeprefix("torchvision.")
    known = models.list_models(module=models)
    if architecture not in known:
        raise _unknown(name, [f"torchvision.{other}" for other in known])
    if channels != 3:
        raise UserError(
            f"network.name is {name}, which takes colour images, but these have {channels} "
            f"channels: choose one of {', '.join(names())}"
        )
    options = TORCHVISION_OPTIONS.get(architecture, {})
    model: nn.Module = models.get_model(architecture, weights=None, num_classes=classes, **options)
    if isinstance(
        model, models.MNASNet
    ):  # otherwise loads only state dicts that name their version
        load = {"_load_from_state_dict": nn.Module._load_from_state_dict}
        model.__class__ = type("MNASNet", (models.MNASNet,), load)
    return model


def _unknown(name: str, known: list[str]) -> UserError:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0)
    return UserError(
        f"network.name is {name!r}, which does not exist: choose one of {', '.join(near)}"
    )
