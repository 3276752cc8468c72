"""Peak memory of a merge of m candidates, by rule; each merge runs in a process of its own.

Candidates are copies of a ResNet-18 with random weights under one random mask of 90 %. There are
few images, so that most memory is that of the weights. It is the peak resident set in MiB of a
process that merges as the stage does, compared with that of one that scores a single candidate.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pipeline.data.base import Dataset, Split
from pipeline.models.build import build
from pipeline.soup import build as rules
from pipeline.stagekit.merge_inputs import MergeInputs
from pipeline.stagekit.model_folder import write
from pipeline.storage.checkpoint import Checkpoint

# Have the allocator give freed tensors back at once, so that a peak is what was needed.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
RULES = ("uniform", "greedy", "wise", "model_stock", "learned", "distilled")
CPU = torch.device("cpu")


def dataset() -> Dataset:
    """Return 64 random images of 8 x 8 pixels and ten classes in each split."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (64, 3, 8, 8), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(64) % 10)
    mean, std = torch.full((3,), 0.5), torch.full((3,), 0.3)
    return Dataset(split, split, split, tuple("abcdefghij"), mean, std, {})


def prepare(root: Path, network: str, sparsity: float, count: int) -> None:
    """Write ``count`` candidates, their parent and a dense network."""
    masks: dict[str, torch.Tensor] = {}
    meta = {"network": network, "classes": 10, "channels": 3, "sparsity": sparsity}
    for number, name in enumerate(["dense", "parent", *map(str, range(count))]):
        torch.manual_seed(number)
        state = build(network, 10, 3).state_dict()
        if name == "parent":
            masks = {
                key: torch.rand(tensor.shape) >= sparsity
                for key, tensor in state.items()
                if tensor.ndim > 1
            }
        state = {key: tensor * masks.get(key, 1) for key, tensor in state.items()}
        write(root / name, Checkpoint(state, masks, meta), dataset(), CPU)


def merge(root: Path, rule: str, m: int) -> None:
    """Merge as stages/merge.py does, and print this process's peak memory in MiB."""
    torch.set_num_threads(1)
    folders = [root / str(number) for number in range(max(m, 1))]
    given = MergeInputs(
        folders, dataset(), CPU, parent=root / "parent", dense=root / "dense", seed=0
    )
    if m == 0:
        given.score(given.candidates[0])
    else:
        asked = {name: getattr(given, name) for name in rules.required_inputs(rule)}
        soup = rules.load(rule).merge(given.candidates, **asked)
        write(root / f"soup-{rule}-{m}", soup.checkpoint, dataset(), CPU)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def peak(root: Path, rule: str, m: int, rounds: int) -> float:
    """Return the median peak of some processes that merge, in MiB."""
    command = [sys.executable, "-m", "benchmarks.merge_memory", "--root", str(root)]
    command += ["--rule", rule, "--m", str(m)]
    runs = [
        subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | ALLOCATOR
        )
        for _ in range(rounds)
    ]
    return statistics.median(float(run.stdout.split()[-1]) for run in runs)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--m", type=int, nargs="+", default=[3, 10, 20])
    parser.add_argument("--rules", nargs="+", default=RULES)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rule", help="merge once, in this process")
    parser.add_argument("--root", type=Path, help="the candidates' folder, with --rule")
    options = parser.parse_args()
    if options.rule:
        merge(options.root, options.rule, options.m[0])
        return
    with TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root, options.network, options.sparsity, max(options.m))
        size = sum(p.numel() * 4 for p in build(options.network, 10, 3).parameters()) / 2**20
        alone = peak(root, "uniform", 0, options.rounds)
        print(f"{options.network}: {size:.0f} MiB; one candidate measured: {alone:.0f} MiB")
        print("| rule |" + "".join(f" m = {m} |" for m in options.m))
        print("|---|" + "--:|" * len(options.m))
        for rule in options.rules:
            cells = [peak(root, rule, m, options.rounds) for m in options.m]
            print(f"| {rule} |" + "".join(f" {cell:.0f} |" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
