"""Remove pruned filters physically, check the smaller network's outputs, and measure its savings.

The measured times differ from run to run; everything else is the same bits.
"""

import argparse
from pathlib import Path

from pipeline.channels import shrunk_checkpoint
from pipeline.channels.shrink import kept_filters, shrink
from pipeline.data.base import load
from pipeline.evaluate.speedup import output_difference, savings
from pipeline.models.build import build
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.stagekit.model_folder import MODEL, network, read
from pipeline.storage.checkpoint import write_json
from pipeline.train.predict import logits

IMAGES = 256  # for the comparison of outputs

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    data, checkpoint = load(flags.data), read(flags.model)
    masked = network(checkpoint)
    kept = kept_filters(masked, checkpoint.masks)
    images = data.test.images[:IMAGES]
    with atomic_folder(flags.out) as folder:
        file = folder / shrunk_checkpoint.SMALL
        shrunk_checkpoint.save(file, shrink(masked, kept), kept, checkpoint.meta)
        removed = shrunk_checkpoint.load(file, build)  # measure what the file holds
        outputs = [logits(one, images, data.mean, data.std) for one in (masked, removed)]
        metrics = {
            "difference": output_difference(*outputs),
            "bytes": {
                "dense": sum(tensor.nbytes for tensor in checkpoint.state.values()),
                "masked": (flags.model / MODEL).stat().st_size,
                "removed": file.stat().st_size,
            },
            "filters": {
                name: {"kept": int(mask.count_nonzero()), "filters": len(mask)}
                for name, mask in kept.items()
            },
            **savings(masked, removed, checkpoint.masks, tuple(images.shape[1:])),
        }
        write_json(folder / "metrics.json", metrics)


if __name__ == "__main__":
    run(main, parser)
