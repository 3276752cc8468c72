"""Networks by name.

A network is a file of this folder with one function ``build(classes, channels) -> nn.Module``, or
a path to such a function; ``torchvision.NAME`` is any image classifier of torchvision, and
``timm.NAME`` one of timm, with random weights.
"""

import difflib

from torch import nn

from pipeline import registry
from pipeline.code_files import is_path
from pipeline.errors import UserError
from pipeline.optional_imports import extra

# These two return a second, auxiliary output unless told otherwise.
TORCHVISION_OPTIONS = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def build(name: str, classes: int, channels: int = 3) -> nn.Module:
    """Return the network ``name`` with random weights, drawn from torch's generator.

    Args:
        name: a file of this folder, "torchvision.NAME", "timm.NAME", or the path of a function.
        classes: number of logits K; the network maps images [B, channels, H, W] to [B, K].
        channels: of the image; torchvision's networks take 3.

    Raises:
        UserError: there is no such network, or it cannot take that many channels; or a file of the
            user's returns no network.
    """
    if name.startswith("torchvision."):
        return _from_torchvision(name, classes, channels)
    if name.startswith("timm."):
        return _from_timm(name, classes, channels)
    if name not in registry.names("models") and not is_path(name):
        raise _unknown(name, registry.choices("models"))
    model = registry.load("models", name, "network.name").build(classes, channels)
    if not isinstance(model, nn.Module):
        raise UserError(
            f"network.name is {name!r}, which returns {type(model).__name__}: it must return a "
            "torch.nn.Module"
        )
    if next(model.parameters(), None) is None:
        raise UserError(
            f"network.name is {name!r}, which returns a network without parameters: give it layers "
            "to train"
        )
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
            f"channels: choose one of {', '.join(registry.names('models'))}"
        )
    options = TORCHVISION_OPTIONS.get(architecture, {})
    model: nn.Module = models.get_model(architecture, weights=None, num_classes=classes, **options)
    if isinstance(
        model, models.MNASNet
    ):  # otherwise loads only state dicts that name their version
        load = {"_load_from_state_dict": nn.Module._load_from_state_dict}
        model.__class__ = type("MNASNet", (models.MNASNet,), load)
    return model


def _from_timm(name: str, classes: int, channels: int) -> nn.Module:
    timm = extra("timm", of="timm")
    architecture, known = name.removeprefix("timm."), timm.list_models()
    if architecture not in known:
        raise _unknown(name, [f"timm.{other}" for other in known])
    try:
        model: nn.Module = timm.create_model(
            architecture, pretrained=False, num_classes=classes, in_chans=channels
        )
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"network.name is {name}, which timm cannot build for {channels} channels and "
            f"{classes} classes ({error}): choose another"
        ) from error
    layers = extra("timm.layers", of="timm")
    kinds = (layers.StdConv2d, layers.ScaledStdConv2d)
    if any(isinstance(module, kinds) for module in model.modules()):
        raise UserError(
            f"network.name is {name}, which standardises its weights before it uses them, so that "
            "pruned ones would not be zero: choose another"
        )
    return model


def _unknown(name: str, known: list[str]) -> UserError:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0)
    return UserError(
        f"network.name is {name!r}, which does not exist: choose one of {', '.join(near)}"
    )
