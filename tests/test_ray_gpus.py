"""A stage that holds several GPUs of a Ray cluster; the GPUs are logical."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.run import ray_cluster
from pipeline.run.local import LocalEngine
from pipeline.run.ray_engine import RayEngine
from tests.test_ray import another_node, blind_node, need_mounts, short_folder
from tests.test_run import modules
from tests.toy import SOURCE, Toy, alone, until

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's own
# The stage's processes sum their ranks, and the first writes what it saw.
STAGE = """
import argparse, os
from pathlib import Path
import torch
import torch.distributed as dist
from pipeline.train.launch import leave_group, on_all_gpus

def main(flags):
    total = torch.tensor([1.0 + dist.get_rank(), 1 / (3.0 + dist.get_rank())])
    dist.all_reduce(total)
    if leave_group():
        out = Path(flags.out)
        out.mkdir(parents=True)
        out.joinpath("facts").write_text(repr(total.tolist()))
        Path("seen").write_text(os.environ["CUDA_VISIBLE_DEVICES"])

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device")
    parser.add_argument("out")
    on_all_gpus(main)(parser.parse_args())
"""


def joined(toy: Toy, nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait until the cluster has ``nodes`` nodes."""
    with monkeypatch.context() as patch:
        patch.delenv("SMS_GPUS_PER_STAGE", raising=False)
        engine = RayEngine(toy.root, 1)
        until(lambda: engine.hosts.refresh() or len(engine.hosts.actors) == nodes, 180)
        engine.stop(1)


@pytest.mark.extras
def test_torchrun_on_the_gpus_of_one_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes train together on the two GPUs of one node, as without Ray."""
    alone(monkeypatch, tmp_path)
    monkeypatch.setenv("SMS_GPUS_PER_STAGE", "2")
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    ours, local = Toy(tmp_path / "ours"), Toy(tmp_path / "local")
    for toy in (ours, local):
        modules(toy)
        (toy.root / "stages" / "pair.py").write_text(STAGE)
        cmd = "stages/run pair --device auto artifacts/m"
        toy.stages["m"] |= {"cmd": cmd, "deps": ["stages/pair.py"]}
        toy.write()
    assert local.execute(engine=LocalEngine(local.root, 1)).ran == ("m",)
    with short_folder():
        address, lock = ray_cluster.join(ray_cluster.private_folder(), 2, 0)
        with lock, another_node(address, "--num-cpus 2 --num-gpus 1"):
            joined(ours, 2, monkeypatch)
            with pytest.raises(UserError, match="must have 2 GPUs, but the largest has 1"):
                RayEngine(ours.root, 4)
            with another_node(address, "--num-cpus 2 --num-gpus 2"):
                joined(ours, 3, monkeypatch)
                engine = RayEngine(ours.root, 4)
                assert engine.hosts.slots(gpu=True) == 1, "of three GPUs on two nodes"
                assert ours.execute(engine=engine).ran == ("m",)
    assert (ours.root / "seen").read_text() == "0,1"
    assert ours.lock() == local.lock()
    facts = (ours.root / "artifacts" / "m" / "facts").read_text()
    assert facts == (local.root / "artifacts" / "m" / "facts").read_text()
    assert facts.startswith("[3.0, ")


@pytest.mark.extras
def test_stage_that_only_a_node_without_gpus_can_run_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's node sees the file and has no GPU, the other one has a GPU and no file."""
    need_mounts()
    alone(monkeypatch, tmp_path)
    monkeypatch.setenv("SMS_ENGINE", "ray")
    hidden, shared = tmp_path / "hidden" / "weights", tmp_path / "weights"
    hidden.parent.mkdir()
    toy = Toy(tmp_path / "toy")
    toy.add("first")
    with short_folder():
        address, lock = ray_cluster.join(ray_cluster.private_folder(), 2, 0)
        with lock, blind_node(address, hidden.parent, flags="--num-cpus 2 --num-gpus 1"):
            joined(toy, 2, monkeypatch)
            for file in (hidden, shared):
                file.touch()
            toy.add("net", "first", run=f"cat {hidden}", meta={"outside": [str(hidden)]})
            sentence = (
                rf"stage net reads {hidden}, which not all nodes .* 0 GPUs and the stage needs 1: "
            )
            with pytest.raises(UserError, match=sentence):
                toy.execute()
            assert toy.ran() == []
            toy.add("net", "first", run=f"cat {shared}", meta={"outside": [str(shared)]})
            assert toy.execute().ran == ("first", "net")
            toy.add("net", "first", run=f"cat {shared}", meta={"outside": [str(hidden)]})
            assert toy.execute().cached == ("first", "net"), "it need not run"
