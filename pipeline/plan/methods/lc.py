"""Learning-compression: a growing penalty on small weights (Carreira-Perpinan et al., 2018)."""

from pipeline.plan import during

plan = during.alone("lc", may_start_dense=True)
