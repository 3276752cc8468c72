"""The dense weights behind a mask (DPF), in a file beside the network while training pauses."""

from pathlib import Path

from pipeline.checkpoint import Checkpoint, load_tensors

DENSE = "dense.safetensors"  # in a model folder


def with_dense(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Return the checkpoint of ``folder``, with the dense weights in place of the masked ones."""
    if not (folder / DENSE).exists():
        return checkpoint
    state = checkpoint.state | load_tensors(folder / DENSE)
    return Checkpoint(state, checkpoint.masks, checkpoint.meta)
