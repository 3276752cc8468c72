"""Learning-compression: a growing penalty on small weights (Carreira-Perpinan et al., 2018)."""

from pipeline.plan import sparsify

LABEL = "LC"
LOOK = ("black", "v", ":")
PAPER = {"pruning_during_training": "LC"}

plan = sparsify.alone("lc", may_start_dense=True)
