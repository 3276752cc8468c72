"""Set a pruned classifier beside the dense one, group by group: recall, errors made and mended."""

import argparse
from pathlib import Path
from typing import Any

from pipeline.checkpoint import load_tensors, write_json
from pipeline.cli import publish, run
from pipeline.data.base import Groups, load
from pipeline.evaluate.subgroups import against, by_group, chosen
from pipeline.model_folder import PREDICTIONS, network, read
from pipeline.train.device import pick
from pipeline.train.predict import logits

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--dense", type=Path, help="the network that it was pruned from")
parser.add_argument("--groups", help="a group set of the data; its first own, else its classes")
parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
parser.add_argument("--out", type=Path, required=True)


def main(flags: argparse.Namespace) -> None:
    """Run the stage."""
    data = load(flags.data)
    name, groups = chosen(data, flags.groups)
    kept = load_tensors(flags.model / PREDICTIONS)["test"]
    metrics: dict[str, Any] = {"set": name, **by_group("test", kept, data.test, data, groups)}
    if groups.train is not None:
        model = network(read(flags.model)).to(pick(flags.device))
        seen = logits(model, data.train.images, data.mean, data.std).cpu()
        own = Groups(groups.names, groups.train)
        metrics |= by_group("train", seen, data.train, data, own)
    if flags.dense is not None:
        dense = load_tensors(flags.dense / PREDICTIONS)["test"]
        metrics |= against(dense, kept, data.test, "test", groups)
    with publish(flags.out) as folder:
        write_json(folder / "metrics.json", metrics)


if __name__ == "__main__":
    run(main, parser)
