"""Gradual magnitude pruning: a cubic ramp of sparsities while training (Zhu & Gupta, 2017)."""

from pipeline.plan import sparsify

LABEL = "GMP"

plan = sparsify.alone("gmp")
