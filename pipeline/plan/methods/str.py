"""A learned soft threshold a layer, sparsity as it comes (Kusupati et al., 2020)."""

from pipeline.plan import sparsify

LABEL = "STR"
LOOK = ("purple", "^", ":")

plan = sparsify.alone("str")
