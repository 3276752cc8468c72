"""The draws and the file of the campaign of faults; the faults themselves are not part of a run."""

from pathlib import Path

from tests.ray_faults.__main__ import read, write
from tests.ray_faults.draw import KINDS, draw, on_ports


def test_a_trial_is_a_function_of_the_seed_and_its_number() -> None:
    faults = [draw(0, trial) for trial in range(3 * len(KINDS))]
    assert faults == [draw(0, trial) for trial in range(3 * len(KINDS))]
    assert faults != [draw(1, trial) for trial in range(3 * len(KINDS))]
    for cycle in range(3):
        part = faults[cycle * len(KINDS) : (cycle + 1) * len(KINDS)]
        assert sorted(fault.kind for fault in part) == sorted(KINDS)
    assert {fault.node for fault in faults if fault.kind in {"worker", "actor"}} == {"a", "b"}
    assert all(fault.node == "a" for fault in faults if fault.kind in {"driver", "head", "keeper"})


def test_faults_on_two_ports_touch_no_disk_of_the_machine() -> None:
    """Without a mount table of its own, node b has neither a hidden folder nor a small disk."""
    drawn = [draw(0, trial) for trial in range(3 * len(KINDS))]
    faults = [on_ports(fault) for fault in drawn]
    assert any(fault.blind and fault.kind != "disk" for fault in drawn)
    assert {fault.kind for fault in faults if fault} == {*KINDS} - {"disk"}
    assert not any(fault.blind for fault in faults if fault)


def test_a_campaign_goes_on_where_its_file_ends(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    assert read(file) == []
    later, first = {"trial": "10", "end": "a; b, c"}, {"trial": "9", "end": "serial lock"}
    write(file, [later, first])
    assert read(file) == [first, later]
