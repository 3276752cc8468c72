"""Discovering neural wirings: the largest act, all learn (Wortsman et al., 2019)."""

from pipeline.plan import during

LABEL = "DNW"

plan = during.alone("dnw")
