"""Placement of examples: kept on the GPU where they fit, otherwise sent without waiting."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pipeline.data.base import Dataset, Split

SHARE = 16  # splits of up to 1 / 16 of a GPU's memory are kept there


def memory(device: torch.device) -> int:
    """Return how many bytes of memory the GPU ``device`` has, used or not."""
    return torch.cuda.get_device_properties(device).total_memory


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return ``tensor`` on ``device``.

    To a GPU it is copied from page-locked memory: the host does not wait, and the GPU computes
    meanwhile.
    """
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def resident(data: "Dataset", device: torch.device) -> "Dataset":
    """Return ``data`` with the images of each split on ``device``, if that is a GPU and they fit.

    A split that is used more than once (validation, every epoch) is then copied once. A split fits
    if it takes up to a sixteenth of the GPU's memory, so that four stages with three splits each
    leave a quarter; larger ones are sent a batch at a time, as are compressed images. Labels stay
    on the host, where scores are computed.
    """
    if device.type == "cpu":
        return data
    most = memory(device) // SHARE

    def moved(split: "Split") -> "Split":
        fits = isinstance(split.images, Tensor) and split.images.nbytes <= most
        return replace(split, images=split.images.to(device)) if fits else split

    return replace(data, train=moved(data.train), val=moved(data.val), test=moved(data.test))
