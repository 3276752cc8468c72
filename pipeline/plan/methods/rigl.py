"""RigL: sparse from the start, connections are dropped and grown (Evci et al., 2020)."""

from pipeline.plan import sparsify

LABEL = "RigL"
LOOK = ("vermilion", "h", "--", 1.2)

plan = sparsify.alone("rigl")
