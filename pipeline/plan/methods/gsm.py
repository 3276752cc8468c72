"""Global sparse momentum: the loss updates only the most salient weights (Ding et al., 2019)."""

from pipeline.plan import sparsify

LABEL = "GSM"

plan = sparsify.alone("gsm", may_start_dense=True)
