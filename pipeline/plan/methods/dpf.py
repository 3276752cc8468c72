"""Dynamic pruning with feedback: pruned weights train on and may return (Lin et al., 2020)."""

from pipeline.plan import sparsify

LABEL = "DPF"

plan = sparsify.alone("dpf")
