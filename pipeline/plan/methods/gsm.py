"""Global sparse momentum: the loss updates only the most salient weights (Ding et al., 2019)."""

from pipeline.plan import sparsify

LABEL = "GSM"
LOOK = ("purple", "s", "--")
PAPER = {"pruning_during_training": "GSM"}

plan = sparsify.alone("gsm", may_start_dense=True)
