"""Dynamic sparse training: channels learn thresholds, sparsity as it comes (Liu et al., 2020)."""

from pipeline.plan import sparsify

LABEL = "DST"
LOOK = ("green", "s", ":")
PAPER = {"pruning_during_training": "DST"}

plan = sparsify.alone("dst")
