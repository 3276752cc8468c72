"""Gradual magnitude pruning: prune more along a cubic ramp while training (Zhu & Gupta, 2017)."""

from pipeline.plan import sparsify

LABEL = "GMP"

plan = sparsify.alone("gmp")
