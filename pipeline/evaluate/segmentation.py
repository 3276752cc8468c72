"""Evaluation of a segmentation network: IoU by class, with intervals."""

from math import isnan
from typing import Any

import torch
from torch import Tensor

from pipeline.data.base import Dataset, Split
from pipeline.evaluate.iou import iou, mean_iou

RESAMPLES = 1000


def summary(
    predictions: Tensor, split: Split, data: Dataset, *, groups: bool = True
) -> dict[str, Any]:
    """Return the metrics of the test split.

    Args:
        predictions: counts and losses, float64 [N, K, K + 1] (pipeline/tasks/segmentation.py).
        split: the test split.
        data: the data set of the split.
        groups: without effect; classes are always counted, and there are no other groups.

    Returns:
        test_mean_iou, test_accuracy (the fraction of correct pixels), test_loss,
        test_examples, worst_class (an IoU), worst_class_name, and groups {"class": class_overlap}.
    """
    del groups
    counts, losses = predictions[:, :, :-1], predictions[:, :, -1]
    total = counts.sum(0)
    by_class = class_overlap(counts, data.classes)
    return {
        "test_mean_iou": float(mean_iou(total)),
        "test_accuracy": float(total.diagonal().sum() / total.sum()),
        "test_loss": float(losses.sum() / total.sum()),
        "test_examples": len(split),
        "worst_class": by_class["worst_iou"],
        "worst_class_name": by_class["worst_group"],
        "groups": {"class": by_class},
    }


def class_overlap(counts: Tensor, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the IoU of every class, with a 95 % interval from 1,000 resamplings of the images.

    Pixels of one image are correlated, so whole images are drawn, N of N with replacement, with a
    fixed seed; the interval is from the 2.5 % to the 97.5 % quantile of the resampled IoUs.

    Args:
        counts: the confusion matrix of each image, float64 [N, K, K].
        names: the K classes.

    Returns:
        ``groups`` {name: {iou, n, low, high}}, n the number of images with the class, without the
        classes that are neither in the labels nor in the prediction; ``worst_group`` (the first of
        equal ones) and its ``worst_iou``.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, Section 13.3.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(counts), (RESAMPLES, len(counts)), generator=generator)
    times = torch.zeros(RESAMPLES, len(counts), dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones_like(times))  # how often each image was drawn
    resampled = iou((times @ counts.flatten(1)).view(-1, *counts.shape[1:]))
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = resampled.nanquantile(ends, dim=0).tolist()
    images = (counts.sum(2) > 0).sum(0).tolist()
    by_class = {
        name: {"iou": value, "n": images[k], "low": low[k], "high": high[k]}
        for k, (name, value) in enumerate(zip(names, iou(counts.sum(0)).tolist(), strict=True))
        if not isnan(value)
    }
    worst = min(by_class, key=lambda name: by_class[name]["iou"])
    return {"groups": by_class, "worst_group": worst, "worst_iou": by_class[worst]["iou"]}
