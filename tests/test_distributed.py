"""One training by two processes: the same steps as by one, the same bits in both."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.sparsify.build import names
from pipeline.train.batches import Batches
from pipeline.train.distributed import all_reduce_sum, local_shard, rank, shard, world_size
from tests.project import Project, ran, write_example
from tests.ranks import AUGMENTED, GOAL, SCENARIOS, norm
from tests.test_loop import dataset

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what each of two processes ended with."""
    return by_two(tmp_path_factory.mktemp("ranks"), "cpu")


def by_two(folder: Path, device: str) -> list[dict[str, Any]]:
    """Run tests/ranks.py as two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    own["RANKS_DEVICE"] = device
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ranks", str(folder)],
            cwd=ROOT,
            env=os.environ
            | own
            | {"RANK": str(number), "SMS_EVENTS": str(folder / f"events{number}")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    found = [torch.load(folder / f"{number}.pt") for number in range(2)]
    for number, one in enumerate(found):
        one["said"] = said[number]
        events = folder / f"events{number}"
        one["events"] = events.read_text().splitlines() if events.exists() else []
    return found


def assert_same_bits(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def assert_close(left: dict[str, Tensor], right: dict[str, Tensor], error: float) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(
            tensor, right[name], rtol=0, atol=error, msg=lambda m, n=name: f"{n}: {m}"
        )


# ---- shares


@given(st.integers(0, 300), st.integers(1, 20))
def test_shares_follow_each_other_and_differ_by_one_at_most(count: int, of: int) -> None:
    rows = [list(range(count))[shard(count, number, of)] for number in range(of)]
    assert [row for part in rows for row in part] == list(range(count))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_a_process_alone_has_everything() -> None:
    assert (world_size(), rank(), local_shard(7)) == (1, 0, slice(0, 7))
    assert all_reduce_sum(torch.tensor([2.0, 3.0])).tolist() == [2, 3]


def test_shares_of_a_batch_are_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order and the draws of the augmentation are those of the whole batch."""

    def epochs() -> list[tuple[Tensor, Tensor]]:
        cpu = torch.device("cpu")
        batches = Batches(dataset(), 20, AUGMENTED, seed=0, device=cpu)
        return [batch for _ in range(2) for batch in batches.epoch()]

    whole, parts = epochs(), []
    for number in range(3):
        monkeypatch.setattr(
            "pipeline.train.batches.local_shard", lambda n, r=number: shard(n, r, 3)
        )
        parts.append(epochs())
    assert [len(part[0][1]) for part in parts] == [6, 7, 7]
    for step, (images, labels) in enumerate(whole):
        assert torch.equal(torch.cat([part[step][0] for part in parts]), images)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), labels)


# ---- two processes against one


@pytest.mark.parametrize("name", SCENARIOS)
def test_both_processes_end_with_the_same_bits(ranks: list[dict[str, Any]], name: str) -> None:
    first, second = (found[name] for found in ranks)
    assert_same_bits(first["state"], second["state"])
    assert first["history"] == second["history"]
    for more in ("gradients", "masks"):
        if more in first:
            assert_same_bits(first[more], second[more])


@pytest.mark.parametrize("name", ["plain", "pixels", "swa", "norm", "sam", "s2sam"])
def test_two_processes_train_as_one_does(ranks: list[dict[str, Any]], name: str) -> None:
    """Shares of 7 and 8, unequally many pixels that count, clipping, masks, BatchNorm."""
    alone, together = SCENARIOS[name](), ranks[0][name]
    assert_close(together["state"], alone["state"], 1e-5)
    for one, other in zip(together["history"], alone["history"], strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("name", ["plain", "norm"])
def test_hooks_see_the_gradient_of_the_whole_batch(ranks: list[dict[str, Any]], name: str) -> None:
    assert_close(ranks[1][name]["gradients"], SCENARIOS[name]()["gradients"], 1e-6)


@pytest.mark.parametrize("name", ["plain", "norm", "bf16"])
def test_masks_hold_after_every_step_of_either(ranks: list[dict[str, Any]], name: str) -> None:
    assert [(found[name]["wrong"], found[name]["steps"]) for found in ranks] == [(0, 12), (0, 12)]


@pytest.mark.parametrize("method", [name for name in names() if name not in {"dst", "str"}])
def test_pruning_during_training_reaches_its_sparsity(
    ranks: list[dict[str, Any]], method: str
) -> None:
    masks = ranks[1][method]["masks"]
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert kept == sum(mask.numel() for mask in masks.values()) * (1 - GOAL.sparsity)
    for name, mask in masks.items():
        assert not ranks[1][method]["state"][name][~mask].any()


def test_dropout_has_a_stream_for_each_process(ranks: list[dict[str, Any]]) -> None:
    """With one stream for both the same places would be dropped in both shares."""
    alone = SCENARIOS["dropout"]()
    assert ranks[0]["dropout"]["seed"] == alone["seed"]
    assert ranks[1]["dropout"]["seed"] != alone["seed"]
    own, other = (found["history"][-1]["loss"] for found in (ranks[0]["dropout"], alone))
    assert own == pytest.approx(other, rel=0.1)
    assert own != other


def test_a_batchnorm_layer_sees_the_whole_batch(ranks: list[dict[str, Any]]) -> None:
    """Outputs, input gradients and statistics of 3 + 4 examples are PyTorch's of all 7."""
    alone, parts = norm(), [found["layer"] for found in ranks]
    assert [len(part["y"]) for part in parts] == [3, 4]
    for what in "yx":
        both = torch.cat([part[what] for part in parts])
        torch.testing.assert_close(both, alone[what], rtol=0, atol=1e-5)
    for part in parts:
        assert_close(part["state"], alone["state"], 1e-6)


def test_means_weigh_each_example_alike(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["means"][0].flatten().tolist() == [2.5] * 24  # (0 + 10) / (1 + 3)
        assert found["means"][1].tolist() == [0.25, 0.75, 1.25]


def test_the_first_process_alone_speaks(ranks: list[dict[str, Any]]) -> None:
    first, second = ranks
    assert len(first["events"]) == 3 * len(SCENARIOS)
    assert json.loads(first["events"][1]) == first["plain"]["history"][1] | {"epochs": 3}
    assert second["events"] == []
    assert second["said"] == ""


def test_a_batch_too_small_for_all_is_refused(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert "a batch has 1 examples, too few for 2 processes" in found["refused"]
        assert "SMS_GPUS_PER_STAGE" in found["refused"]


@pytest.mark.gpu
def test_two_processes_train_as_one_does_on_a_gpu(tmp_path: Path) -> None:
    """There BatchNorm is PyTorch's own; convolutions round to TensorFloat-32."""
    first, second = by_two(tmp_path, "cuda")
    for name in ("plain", "norm", "bf16"):
        assert_same_bits(first[name]["state"], second[name]["state"])
        assert (first[name]["wrong"], first[name]["steps"]) == (0, 12)
    for name in ("plain", "norm"):
        assert_close(first[name]["state"], SCENARIOS[name]()["state"], 1e-2)
    both = torch.cat([first["layer"]["y"], second["layer"]["y"]])
    torch.testing.assert_close(both, norm()["y"], rtol=0, atol=1e-5)


# ---- stages, started as people and the driver start them

FLAGS = "--network resnet8 --schedule linear --learning-rate 0.1 --weight-decay 5e-4 --seed 0"


class Stages:
    """The stages on the digits, trained by two processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(
            [ROOT / "stages/run", "prepare", "--name", "digits", "--out", folder / "data"],
            cwd=ROOT,
            env=self.environment(1),
            check=True,
        )

    def environment(self, count: int) -> dict[str, str]:
        own = {"SMS_PYTHON": sys.executable, "SMS_GPUS_PER_STAGE": str(count)}
        return os.environ | own | {"SMS_EVENTS": str(self.folder / "events")}

    def command(self, *more: str, out: str, prefix: tuple[str, ...] = ("stages/run", "pretrain")):
        data = ["--data", str(self.folder / "data"), "--batch-size", "127"]
        own = [*FLAGS.split(), *data, "--epochs", "2", "--out", str(self.folder / out)]
        return [*prefix, *own, *more]  # of flags that stand twice the last one counts

    def start(self, *words: str, out: str = "out") -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words, out=out),
            cwd=ROOT,
            env=self.environment(2),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def training(self) -> subprocess.Popen[str]:
        """Start a training without end, and return once it has trained an epoch."""
        process = self.start("--epochs", "10000")
        assert process.stdout
        assert process.stdout.readline().startswith("epoch 1")
        return process


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages(tmp_path_factory.mktemp("stages"))


def members(launcher: int) -> list[int]:
    """Return the processes that ``launcher`` started."""
    pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
    return [pid for pid in sorted(pids) if _stat(pid)[1] == str(launcher)]


def gone(pids: list[int]) -> bool:
    """Wait until none of ``pids`` lives."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        if all(_stat(pid)[0] == "Z" for pid in pids):
            return True
        time.sleep(0.1)
    return False


def _stat(pid: int) -> list[str]:
    """Return the state and the parent of a process; Z, a zombie's, where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return ["Z", ""]


@pytest.mark.slow
def test_a_stage_by_two_processes_by_itself_and_by_torchrun(stages: Stages) -> None:
    process = stages.start(out="own")
    assert process.communicate()[0].count("epoch 2") == 1
    assert process.returncode == 0
    prefix = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    command = stages.command(out="hand", prefix=(*prefix, "-m", "stages.pretrain"))
    subprocess.run(command, cwd=ROOT, env=stages.environment(1), check=True)
    own, hand = (
        {file.name: file.read_bytes() for file in (stages.folder / out).iterdir()}
        for out in ("own", "hand")
    )
    assert own == hand
    assert sorted(own) == [
        "history.json",
        "learning_rates.safetensors",
        "metrics.json",
        "model.safetensors",
        "predictions.safetensors",
    ]
    events = [json.loads(line) for line in (stages.folder / "events").read_text().splitlines()]
    assert sum("epoch" in event for event in events) == 4  # two each
    assert [event["gpus"] for event in events if "gpus" in event] == [2]
    assert not list(stages.folder.glob(".*partial"))


@pytest.mark.slow
def test_a_mistake_is_one_sentence_however_many_make_it(stages: Stages) -> None:
    process = stages.start("--learning-rate", "1e30", out="diverged")
    said = process.communicate()[0]
    assert process.returncode == 2
    assert said.startswith("error: training diverged in epoch 1")
    assert len(said.splitlines()) == 1
    assert not (stages.folder / "diverged").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="of Linux's /proc")
def test_the_death_of_one_ends_all_and_is_told(stages: Stages) -> None:
    process = stages.training()
    first, second = members(process.pid)
    os.kill(second, signal.SIGKILL)
    said = process.communicate()[0]
    assert process.returncode == 1
    last = said.splitlines()[-1]
    assert last.startswith("error: process 1 of 2 failed, which ended the others: Signal 9")
    assert gone([first, second])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="of Linux's /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_stage(stages: Stages, number: signal.Signals) -> None:
    process = stages.training()
    both = members(process.pid)
    assert len(both) == 2
    os.kill(process.pid, number)
    process.communicate()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert gone(both)
    assert not (stages.folder / "out").exists()


@pytest.mark.slow
def test_the_graph_trains_by_two_processes_under_the_same_cache_keys(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "project")
    for old, new in (("[sms, imp]", "[imp]"), ("m: 3", "m: 1"), ("phases: null", "phases: 1")):
        project.edit("params.yaml", old, new)
    write_example(tmp_path / "mine")  # whose code the processes of a stage execute too
    project.edit("recipes/tiny.yaml", "name: resnet8", "name: ../mine/net.py")
    output = project.run("dvc", "repro", SMS_GPUS_PER_STAGE="2")
    assert {"s0-dense", "s0-p1-c0"} <= ran(output)
    log = project.root / ".dvc" / "tmp" / "sms" / "logs" / "s0-p1-c0.log"
    assert len(log.read_text().splitlines()) == 1  # one epoch, told once
    assert ran(project.run("dvc", "repro")) == set()
