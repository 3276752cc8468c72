"""Global sparse momentum: only the most salient weights learn from the loss (Ding et al., 2019)."""

from pipeline.plan import sparsify

LABEL = "GSM"

plan = sparsify.alone("gsm", may_start_dense=True)
