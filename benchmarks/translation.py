"""Translation's training loop against the obvious one, in one interleaved run.

    python -m benchmarks.translation data          # the folder above multi30k

Both train the same small T5, 60 % of its weights pruned, on the same sentences of Multi30k in
batches of 32 with SGD, Nesterov momentum and clipping. The obvious way is transformers'
T5ForConditionalGeneration with its own loss, batches padded to their longest sentence by a
DataLoader, `torch.nn.utils.prune` and metrics read every step. Runs alternate (theirs, ours,
theirs, ours...), one thread each; printed are the medians of the core time a step, which a busy
neighbour hardly changes, and the ratio's spread.
"""

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.rnn import pad_sequence
from transformers import T5Config, T5ForConditionalGeneration

from benchmarks.loop import hardware
from pipeline.data import multi30k
from pipeline.data.base import IGNORE, Dataset
from pipeline.data.build import prepare
from pipeline.models._t5 import PAD
from pipeline.models.build import build
from pipeline.tasks.base import load as load_task
from pipeline.train.loop import Settings, train
from pipeline.train.malloc import configure_malloc

BATCH, RATE, MOMENTUM, DECAY, CLIP, SPARSITY = 32, 0.5, 0.9, 1e-5, 1.0, 0.6
SIZES = {"d_model": 128, "d_kv": 32, "num_heads": 4, "d_ff": 512, "num_layers": 2}  # t5tiny
Run = Callable[[], None]


def drawn(model: nn.Module) -> dict[str, Tensor]:
    """Return random masks of the matrices inside the blocks, as an example of a pruned network."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(weight.shape, generator=generator) >= SPARSITY
        for name, weight in model.named_parameters()
        if "layer" in name and weight.dim() == 2 and "bias" not in name
    }


def obvious(data: Dataset) -> Run:
    """Return the obvious way to train on ``data``."""
    config = T5Config(vocab_size=len(data.classes), decoder_start_token_id=PAD, **SIZES)
    model = T5ForConditionalGeneration(config).train()
    for name, mask in drawn(model).items():
        module, _, parameter = name.rpartition(".")
        prune.custom_from_mask(model.get_submodule(module), parameter, mask)
    optimiser = torch.optim.SGD(
        model.parameters(), RATE, MOMENTUM, weight_decay=DECAY, nesterov=True
    )
    sources, targets = data.train.images[:, 0].long(), data.train.labels.long()
    pairs = [
        (source[source != PAD], target[target != IGNORE])
        for source, target in zip(sources, targets, strict=True)
    ]

    def collate(batch: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        source, target = zip(*batch, strict=True)
        ids = pad_sequence(source, batch_first=True, padding_value=PAD)
        labels = pad_sequence(target, batch_first=True, padding_value=IGNORE)
        return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "labels": labels}

    loader = torch.utils.data.DataLoader(
        pairs, BATCH, shuffle=True, drop_last=True, collate_fn=collate
    )

    def run() -> None:
        loss_sum, correct = 0.0, 0
        for batch in loader:
            optimiser.zero_grad()
            outputs = model(**batch)
            outputs.loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimiser.step()
            loss_sum += outputs.loss.item()
            correct += (outputs.logits.argmax(-1) == batch["labels"]).sum().item()

    return run


def ours(data: Dataset) -> Run:
    """Return our way to train on ``data``."""
    model = build("t5tiny", len(data.classes), 2)
    settings = Settings(BATCH, DECAY, MOMENTUM, clip_norm=CLIP)
    rates = [RATE] * (len(data.train.labels) // BATCH)
    masks, task = drawn(model), load_task("translation")

    def run() -> None:
        train(model, data, settings, rates, seed=0, criterion=task, masks=masks)

    return run


def seconds(run: Run, steps: int) -> float:
    """Return the core time that a step of ``run`` takes."""
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        run()
    return (time.process_time() - start) / steps


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="holds multi30k, unpacked")
    parser.add_argument("--steps", type=int, default=10, help="a run")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    configure_malloc()
    data = prepare("multi30k", multi30k.read(options.folder, None), seed=0)
    few = torch.arange(options.steps * BATCH)
    data = replace(data, train=data.train.take(few), val=data.val.take(few[:1]))
    torch.manual_seed(0)
    ways = {"obvious": obvious(data), "ours": ours(data)}
    for run in ways.values():
        run()  # warm up
    rounds = [[seconds(run, options.steps) for run in ways.values()] for _ in range(options.rounds)]
    print(hardware("cpu"))
    for name, values in zip(ways, zip(*rounds, strict=True), strict=True):
        print(f"  {name:8} {1000 * statistics.median(values):6.0f} ms of a core a step")
    ratios = sorted(their / our for their, our in rounds)
    print(f"  ratio {statistics.median(ratios):.2f}  (from {ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
