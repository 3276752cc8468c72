"""Learning-compression: a growing penalty on small weights (Carreira-Perpinan et al., 2018)."""

from pipeline.plan import during

LABEL = "LC"

plan = during.alone("lc", may_start_dense=True)
