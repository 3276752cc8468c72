"""Discovering neural wirings: the largest act, all learn (Wortsman et al., 2019)."""

from pipeline.plan import sparsify

LABEL = "DNW"

plan = sparsify.alone("dnw")
