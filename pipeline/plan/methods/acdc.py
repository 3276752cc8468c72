"""Alternating compressed and decompressed training, sparse at the end (Peste et al., 2021)."""

from pipeline.plan import sparsify

LABEL = "AC/DC"
LOOK = ("blue", "D", "--")

plan = sparsify.alone("acdc")
