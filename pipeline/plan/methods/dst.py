"""Dynamic sparse training: learned thresholds decide the sparsity (Liu et al., 2020)."""

from pipeline.plan import sparsify

LABEL = "DST"
LOOK = ("green", "s", ":")
PAPER = {"pruning_during_training": "DST"}

plan = sparsify.alone("dst")
