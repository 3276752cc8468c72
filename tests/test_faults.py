"""A short selection of the trials of tests/faults, and what the campaign itself must do."""

from collections import Counter
from pathlib import Path

import pytest

from pipeline.pages.faults import HERE, by_kind
from tests.faults import check
from tests.faults.__main__ import GOOD, KINDS, append, done, run
from tests.faults.draw import POINTS, WEIGHTS, Fault, draw
from tests.faults.power import available
from tests.faults.workspace import Base, Done, Workspace, base, copy

SELECTION = [
    Fault(
        "kill at a write",
        {"signal": "SIGKILL", "target": "driver", "point": "driver: lock", "at": 0.5},
    ),
    Fault("power loss", {"disk": "ext4 noauto_da_alloc", "point": "driver: cache", "at": 0.7}),
    Fault("full disk", {"disk": "artifacts", "at": 0.4}),
    Fault("bit flipped", {"file": "cached object", "at": 0.5, "bit": 3}),
]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return base(tmp_path_factory.mktemp("faults") / "base")


@pytest.mark.slow
@pytest.mark.parametrize("fault", SELECTION, ids=lambda fault: fault.kind)
def test_the_next_run_ends_as_an_undisturbed_one(known: Base, tmp_path: Path, fault: Fault) -> None:
    if fault.kind in {"power loss", "full disk"} and not available():
        pytest.skip("a disk can be mounted by root only")
    off = Fault(fault.kind, fault.details | {"MLflow": "off"})
    row = run(off, known, tmp_path / "trial")
    # After a power loss DVC may refuse its own files of .dvc/tmp, which `verify` then names.
    mended = [f"{GOOD}, after `verify`"] if fault.kind == "power loss" else []
    assert row["outcome"] in [GOOD, *mended], row
    assert row["reached"] == "yes", row


@pytest.mark.slow
def test_the_judge_sees_differences(known: Base, tmp_path: Path) -> None:
    copy(known.end, tmp_path / "w")
    workspace, fine = Workspace(tmp_path / "w"), Done(0, "")
    assert list(check.settled(workspace, known, fine)) == []
    assert list(check.mlflow(workspace, known)) == []
    reports, root = workspace.root / "reports", workspace.root
    (reports / "results.csv").write_text("nothing\n")
    victim = next((root / check.CACHE).glob("??/*.dir"))
    victim.chmod(0o644)
    victim.write_text("[]")
    (root / "stages" / ".dvc.lock.1.tmp").touch()
    found = list(check.settled(workspace, known, Done(1, check.TRACEBACK)))
    for part in ("status 1", "traceback", "reports/results.csv", "damaged objects", "git sees"):
        assert any(part in problem for problem in found), part
    changed = check.disturbed(workspace, known, fine)
    assert any("status 0, but not in" in problem for problem in changed)


def test_a_trial_is_drawn_by_its_number() -> None:
    faults = [draw(0, number) for number in range(200)]
    assert faults == [draw(0, number) for number in range(200)]
    assert faults != [draw(1, number) for number in range(200)]
    assert {fault.kind for fault in faults} == set(WEIGHTS) == set(KINDS)
    hit = Counter(fault.details["point"] for fault in faults if "point" in fault.details)
    assert set(hit) == set(POINTS)


def test_known_trials_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    assert done(file, 0) == set()
    append(file, {"seed": 0, "trial": 3, "outcome": "a, b"})
    append(file, {"seed": 1, "trial": 4})
    assert (done(file, 0), done(file, 1)) == ({3}, {4})


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    rows = [
        {"kind": "power loss", "reached": "yes", "outcome": GOOD, "date": "2026-01-02"},
        {"kind": "power loss", "reached": "no", "outcome": "lost", "date": "2026-01-03"},
        {
            "kind": "full disk",
            "reached": "yes",
            "outcome": f"{GOOD}, after `verify`",
            "date": "2026",
        },
    ]
    for number, row in enumerate(rows):
        append(tmp_path / HERE, {"seed": 0, "trial": number} | row)
    return tmp_path


def test_the_table_counts_outcomes(stored: Path) -> None:
    lines = by_kind(stored).splitlines()
    assert "| power loss | 2 | 1 | 1 | 0 | 1 | 2026-01-02 to 2026-01-03 |" in lines
    assert "| full disk | 1 | 1 | 0 | 1 | 0 | 2026 |" in lines
    assert "| all | 3 | 2 | 1 | 1 | 1 | 2026 to 2026-01-03 |" in lines
