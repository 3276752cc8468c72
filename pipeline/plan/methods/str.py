"""Soft thresholds, learned by layer, which decide the sparsity (Kusupati et al., 2020)."""

from pipeline.plan import sparsify

LABEL = "STR"
LOOK = ("purple", "^", ":")

plan = sparsify.alone("str")
