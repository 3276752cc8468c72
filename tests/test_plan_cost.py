"""Epochs, hours and spans of a plan, against counts by hand and bounds of list scheduling."""

import sys
from pathlib import Path

import pytest
import torch

from pipeline import __main__
from pipeline.config.experiment import Experiment, load
from pipeline.data.base import save
from pipeline.errors import UserError
from pipeline.plan.build import build
from pipeline.plan.cost import cost, costs, report, span, training_images
from pipeline.plan.passes import epochs
from pipeline.plan.speed import images_per_second
from tests.test_loop import dataset

ROOT = Path(__file__).parent.parent


def experiment(**changes: object) -> Experiment:
    """Return the default experiment on digits with 30 and 10 epochs, and ``changes``."""
    values = load(ROOT / "params.yaml").model_dump() | {"recipe": "digits", "seeds": [0]} | changes
    values["pretrain"] |= {"epochs": 30}
    values["retrain"] |= {"epochs": 10}
    return Experiment.model_validate(values)


def test_costs_are_those_counted_by_hand() -> None:
    """One pretraining of 30 epochs; of 10 each: m candidates a phase and rule, phase 1 shared."""
    methods = ["imp", "imp_mx", "sms"]
    alone, plan = costs(experiment(m=3, phases=3, methods=methods, merge=["uniform", "greedy"]))
    assert alone["imp"].epochs == 30 + 3 * 10
    assert alone["imp_mx"].epochs == 30 + 3 * 3 * 10
    assert alone["sms"].epochs == 30 + (3 + 2 * 2 * 3) * 10
    together = cost(plan.nodes.values())
    assert together.epochs == 30 + (3 + 2 * 2 * 3) * 10 + 2 * 10 + 3 * 30
    assert together.stages == len(plan.nodes)
    assert together.trainings == 1 + (3 + 2 * 2 * 3) + 2 + 3


def test_parts_of_one_training_add_up_to_it() -> None:
    """DPF with SMS and m = 1 is one training of 30 epochs, in parts."""
    plan = build(experiment(m=1, methods=["dpf_sms"]))
    parts = [epochs(node) for node in plan.nodes.values() if node.script == "sparsify"]
    assert len(parts) > 1
    assert sum(parts) == 30


def test_spans_obey_the_bounds_of_list_scheduling() -> None:
    """One slot takes the sum, many the longest chain, k at least both and at most their sum."""
    plan = build(experiment(m=3, phases=3, methods=["imp", "imp_mx", "sms"]))
    work, chain = cost(plan.nodes.values()).epochs, {}
    for name, node in plan.nodes.items():  # inputs come first
        chain[name] = epochs(node) + max((chain[read] for read in node.inputs), default=0)
    longest = max(chain.values())
    assert longest == 30 + 3 * 30  # IMP, 3 times longer
    assert span(plan, 1) == work
    assert span(plan, len(plan.nodes)) == longest
    for slots in (2, 3, 8):
        assert max(work / slots, longest) <= span(plan, slots) <= work / slots + longest


def test_table_of_an_experiment() -> None:
    text = report(experiment(m=3, phases=3, methods=["imp"], merge=["uniform"]), 1200, 10.0, [1, 4])
    lines = text.splitlines()
    assert lines[1].split()[2:] == ["4", "60", "72,000", "2.0", "h"]  # 60 epochs of 2 minutes
    assert lines[3].split()[2:] == lines[1].split()[2:]
    assert "sharing saves 0% of" in text
    assert [line.split() for line in lines[-4:-2]] == [
        ["1", "2.0", "h", "100%"],
        ["4", "2.0", "h", "25%"],
    ]
    assert "the longest chain of trainings takes 2.0 h on" in text


def test_a_retraining_by_sam_takes_twice_as_long() -> None:
    params = experiment(m=1, phases=1, methods=["imp"], merge=["uniform"])
    twice = params.with_values({"retrain.sam": "sam"})
    assert [cost(costs(each)[1].nodes.values()).epochs for each in (params, twice)] == [40, 50]


def test_speed_and_size_are_measured_on_the_prepared_data(tmp_path: Path) -> None:
    params = experiment(methods=["imp"])
    with pytest.raises(UserError, match=r"^artifacts/data does not exist yet.*--images N$"):
        training_images(tmp_path, None)
    with pytest.raises(UserError, match=r"^artifacts/data does not exist yet.*give --speed$"):
        images_per_second(build(params), tmp_path)
    save(dataset(96), tmp_path / "artifacts" / "data")
    assert training_images(tmp_path, None) == 96
    assert training_images(tmp_path, 7) == 7
    threads = torch.get_num_threads()
    speed = images_per_second(build(params), tmp_path)
    torch.set_num_threads(threads)
    assert 0 < speed < 1e7


def test_command_prints_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    for words, status in (("--speed 100 --images 1000", 0), ("--slots 0", 2), ("--speed -1", 2)):
        monkeypatch.setattr(sys, "argv", ["pipeline", "cost", *words.split()])
        with pytest.raises(SystemExit) as end:
            __main__.main()
        assert end.value.code == status
    shown = capsys.readouterr()
    assert "\ntogether " in shown.out
    assert shown.err == (
        "error: --slots must be greater than 0\nerror: --speed must be greater than 0\n"
    )
