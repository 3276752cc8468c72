"""Discovering neural wirings: train on the top-k, update all weights (Wortsman et al., 2019)."""

from pipeline.plan import sparsify

LABEL = "DNW"
LOOK = ("orange", "X", ":", 1.2)
PAPER = {"pruning_during_training": "DNW"}

plan = sparsify.alone("dnw")
