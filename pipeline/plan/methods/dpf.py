"""Dynamic pruning with feedback: pruned weights train on and may return (Lin et al., 2020)."""

from pipeline.plan import sparsify

LABEL = "DPF"
LOOK = ("sky", ">", "--")
PAPER = {"pruning_during_training": "DPF"}
PAPER_SETTINGS = {"sparsify.mask_interval": (0,)}  # its mask changes at pruning steps only

plan = sparsify.alone("dpf")
