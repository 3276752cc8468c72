"""Discovering neural wirings: the largest act, all learn (Wortsman et al., 2019)."""

from pipeline.plan import sparsify

LABEL = "DNW"
LOOK = ("orange", "X", ":", 1.2)
PAPER = {"pruning_during_training": "DNW"}

plan = sparsify.alone("dnw")
