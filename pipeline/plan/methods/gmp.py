"""Gradual magnitude pruning: a cubic ramp of sparsities while training (Zhu & Gupta, 2017)."""

from pipeline.plan import sparsify

LABEL = "GMP"
LOOK = ("orange", "d", "--", 1.1)
PAPER = {"pruning_during_training": "GMP"}

plan = sparsify.alone("gmp")
