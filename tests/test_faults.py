"""A short selection of the trials of tests/faults, and what the campaign itself must do."""

from collections import Counter
from pathlib import Path

import pytest

from pipeline.pages.faults import HERE, by_kind
from tests.faults import check, sentences
from tests.faults.__main__ import GOOD, KINDS, ROOT_ONLY, append, done, run
from tests.faults.draw import POINTS, WEIGHTS, Fault, draw
from tests.faults.power import available
from tests.faults.workspace import Base, Done, Workspace, base, copy

SELECTION = [  # one of each kind
    Fault("kill at a random time", {"signal": "SIGKILL", "target": "driver", "at": 0.4}),
    Fault(
        "kill at a write",
        {"signal": "SIGKILL", "target": "driver", "point": "driver: lock", "at": 0.5},
    ),
    Fault("power loss", {"disk": "ext4 noauto_da_alloc", "point": "driver: cache", "at": 0.7}),
    Fault("full disk", {"disk": "artifacts", "at": 0.4}),
    Fault("read-only cache"),
    Fault("bit flipped", {"file": "cached object", "at": 0.5, "bit": 3}),
    Fault("clock set back", {"when": "files from the future"}),
    Fault("two runs at once", {"second": "gc", "at": 0.3}),
    Fault("remote breaks off", {"while": "pulling", "at": 0.3}),
    Fault("out of memory", {"megabytes": 20}),
]


FRAME = '    File "p/stages/a.py", line 3, in run\n'  # the end of a traceback


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return base(tmp_path_factory.mktemp("faults") / "base")


@pytest.mark.slow
@pytest.mark.parametrize("fault", SELECTION, ids=lambda fault: fault.kind)
def test_the_next_run_ends_as_an_undisturbed_one(known: Base, tmp_path: Path, fault: Fault) -> None:
    if fault.kind in ROOT_ONLY and not available():
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
    found = list(check.settled(workspace, known, Done(1, FRAME)))
    for part in ("status 1", "traceback", "reports/results.csv", "damaged objects", "git sees"):
        assert any(part in problem for problem in found), part
    changed = check.disturbed(workspace, known, fine)
    assert any("status 0, but not in" in problem for problem in changed)


STOPPED = "stopped: 2 stages are done and kept, 7 are left\n"
DVC = "ERROR: failed to reproduce 'soups': failed to run: stages/run all, exited with -15\n"
KILL = "kill at a random time"


@pytest.mark.parametrize(
    ("fault", "status", "silent", "spoken"),
    [
        (Fault(KILL, {"signal": "SIGTERM", "target": "driver"}), 255, DVC, STOPPED + DVC),
        (Fault(KILL, {"signal": "SIGINT", "target": "group"}), 255, DVC, STOPPED),
        (Fault(KILL, {"signal": "SIGKILL", "target": "driver"}), 255, "", DVC),
        (Fault(KILL, {"signal": "SIGKILL", "target": "dvc"}), -9, "", STOPPED),
        (Fault(KILL, {"signal": "SIGTERM", "target": "worker"}), 255, DVC, "a failed: killed\n"),
        (
            Fault(KILL, {"signal": "SIGSTOP", "target": "server"}),
            0,
            STOPPED,
            "warning: the process that starts stages ended early\n",
        ),
        (
            Fault(KILL, {"signal": "SIGTERM", "target": "writer"}),
            0,
            "",
            "warning: MLflow's process ended early with status -15\n",
        ),
        (
            Fault("full disk", {"disk": "cache"}),
            255,
            "error: no space left on the disk at / (38,000.1 MB of 99,000 MB free): make room\n",
            "error: no space left on the disk at p/.dvc/cache (0.1 MB of 1 MB free): make room\n",
        ),
        (
            Fault("read-only cache"),
            255,
            f"a failed: exit status 1\n{DVC}",
            "a failed: [Errno 30] Read-only file system: '.dvc/cache/files/md5/3e'\n",
        ),
        (
            Fault("out of memory"),
            255,
            f"a failed: exit status 1\n{DVC}",
            "    error: not enough memory for this stage (MemoryError): run fewer\n",
        ),
        (Fault("bit flipped", {"file": "artifact"}), 1, "x\n", "artifacts/a/b has other bytes\n"),
        (Fault("two runs at once"), 255, "busy\n", "ERROR: reports is busy\n"),
    ],
    ids=str,
)
def test_the_judge_requires_the_sentence_of_the_fault(
    fault: Fault, status: int, silent: str, spoken: str
) -> None:
    def missing(output: str, *, reached: bool = True) -> list[str]:
        done = Done(status, f"> stages/run all\n{output}")
        return list(sentences.missing(fault, done, reached=reached, driver=True))

    assert missing(silent) == ["no sentence says what happened"]
    assert missing(spoken) == []
    assert missing(silent, reached=False) == []
    said = sentences.said(fault, Done(status, spoken), reached=True, driver=True)
    assert said in spoken
    assert said


def test_nothing_need_be_said_of_what_disturbed_nothing() -> None:
    for details, status, driver in (
        ({"signal": "SIGINT", "target": "server"}, 0, True),  # it ignores the signal
        ({"signal": "SIGINT", "target": "dvc"}, 0, True),
        ({"signal": "SIGKILL", "target": "dvc"}, -9, False),
    ):
        fault = Fault(KILL, details)
        assert not list(sentences.missing(fault, Done(status, ""), reached=True, driver=driver))
    power = Fault("power loss", {"disk": "ext4"})
    assert not list(sentences.missing(power, Done(-9, ""), reached=True, driver=True))


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
