"""Images/s of a training on this machine, measured on a part of the prepared data."""

import argparse
import io
import shlex
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import code_files
from pipeline.errors import UserError
from pipeline.plan.dvc_yaml import command
from pipeline.plan.plan import Plan

STEPS = 20  # of an epoch that is timed
EPOCHS = 3  # the first also starts libraries, and on a GPU captures steps: it is not counted


def images_per_second(plan: Plan, root: Path) -> float:
    """Return the images/s of the dense network's training, validation included.

    Raises:
        UserError: there are no prepared data.
    """
    # torch takes seconds to import.
    import torch  # noqa: PLC0415

    from pipeline.data.base import load  # noqa: PLC0415
    from pipeline.models.build import build  # noqa: PLC0415
    from pipeline.process import threads  # noqa: PLC0415
    from pipeline.stagekit.training_flags import settings  # noqa: PLC0415
    from pipeline.tasks.base import load as load_task  # noqa: PLC0415
    from pipeline.train.device import resolve_device  # noqa: PLC0415
    from pipeline.train.hook import Hook  # noqa: PLC0415
    from pipeline.train.loop import steps_per_epoch, train  # noqa: PLC0415
    from pipeline.train.placement import resident  # noqa: PLC0415

    class Clock(Hook):
        """Notes the end of each epoch."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_epoch_end(self, model: Any, epoch: int) -> None:  # noqa: ARG002
            self.ends.append(time.perf_counter())

    folder = root / "artifacts" / "data"
    if not folder.exists():
        raise UserError("artifacts/data does not exist yet: run the pipeline, or give --speed")
    torch.set_num_threads(threads())
    code_files.allow(plan.params.code)
    flags = _flags(plan)
    device, data, clock = resolve_device(flags.device), load(folder), Clock()
    count = min(len(data.train), STEPS * flags.batch_size)
    share = max(1, round(len(data.val) * count / len(data.train)))
    part = replace(
        data,
        train=data.train.take(torch.arange(count)),
        val=data.val.take(torch.arange(share)),
    )
    model = build(flags.network, len(data.classes), data.train.images.shape[1])
    rates = [1e-4] * (EPOCHS * steps_per_epoch(count, flags.batch_size))
    with redirect_stdout(io.StringIO()):
        train(
            model,
            resident(part, device),
            settings(flags),
            rates,
            seed=0,
            criterion=load_task(data.task),
            hooks=[clock],
            device=device,
        )
    return float(count * (EPOCHS - 1) / (clock.ends[-1] - clock.ends[0]))


def _flags(plan: Plan) -> argparse.Namespace:
    """Return the flags of the stage that trains the first dense network."""
    from pipeline.stagekit.training_flags import add_training_flags  # noqa: PLC0415 - torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--network", required=True)
    add_training_flags(parser)
    stage = next(node for node in plan.nodes.values() if node.script == "pretrain")
    words = shlex.split(" ".join(command(stage)))
    return parser.parse_known_args(words[2:])[0]
