"""Permute a network's channels to match another's (Git Re-Basin): equal outputs, closer weights."""

import argparse
from pathlib import Path

import torch

from pipeline.averaging import check
from pipeline.channels.matching import match
from pipeline.channels.permutation_spec import permutation_spec
from pipeline.channels.permute import permuted_checkpoint
from pipeline.data.base import load
from pipeline.prune.prunable import prunable
from pipeline.prune.reprune import average_union
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import network, read, write
from pipeline.storage.checkpoint import sparsity
from pipeline.train.device import resolve_device

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--reference", type=Path, required=True, help="the network that is matched")
parser.add_argument("--run", type=Path, required=True, help="the network that is permuted")
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    data, device = load(flags.data), resolve_device(flags.device)
    reference, unaligned = read(flags.reference), read(flags.run)
    check([reference, unaligned], masks=False)
    model = network(reference)
    spec = permutation_spec(model)
    parameters = [name for name, _ in model.named_parameters()]
    matching = match(reference.state, unaligned.state, spec, parameters, seed=flags.seed)
    aligned = permuted_checkpoint(unaligned, spec, matching.order)
    names = prunable(model)
    before, after = (
        sparsity(average_union([reference, each], names), names) for each in (unaligned, aligned)
    )
    moved = sum(int((o != torch.arange(len(o))).sum()) for o in matching.order.values())
    with atomic_folder(flags.out) as folder:
        write(
            folder,
            aligned,
            data,
            device,
            agreement_before=matching.agreement[0],
            agreement_after=matching.agreement[-1],
            channels_moved=moved / sum(spec.sizes.values()),
            sparsity_of_mean_before=before,
            sparsity_of_mean_after=after,
        )


if __name__ == "__main__":
    run(main, parser)
