"""A learned soft threshold a layer, sparsity as it comes (Kusupati et al., 2020)."""

from pipeline.plan import during

LABEL = "STR"

plan = during.alone("str")
