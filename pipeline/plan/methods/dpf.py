"""Dynamic pruning with feedback: pruned weights keep learning and may return (Lin et al., 2020)."""

from pipeline.plan import sparsify

LABEL = "DPF"
LOOK = ("sky", ">", "--")
PAPER = {"pruning_during_training": "DPF"}
PAPER_SETTINGS = {"during.refresh": (0,)}  # its mask changes at pruning steps only

plan = sparsify.alone("dpf")
