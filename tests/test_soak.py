"""A short soak, and what its draws and its judge must do."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.pages.faults import SOAK
from pipeline.pages.faults import soak as table
from tests.faults.__main__ import append
from tests.faults.workspace import Done, Workspace
from tests.soak.__main__ import soak
from tests.soak.draw import INTERRUPTIONS, draw, fresh
from tests.soak.repository import Repository, Run


@pytest.mark.slow
def test_a_dozen_experiments_leave_nothing_but_their_results(tmp_path: Path) -> None:
    ((row, problems),) = soak(tmp_path, seed=3, count=12, every=12)
    assert problems == []
    assert row["experiments"] == 12
    assert row["interrupted"] >= 2
    assert row["stages"] > 30
    assert row["processes left"] == row["temporary files"] == 0
    assert 0 < row["kept by gc MB"] < row["cache MB"]


def test_experiments_are_drawn_by_their_numbers() -> None:
    drawn = [draw(0, number) for number in range(500)]
    assert drawn == [draw(0, number) for number in range(500)]
    interrupted = [one for one in drawn if one.interruption]
    assert 220 < len(interrupted) < 280
    assert {one.interruption for one in interrupted} == set(INTERRUPTIONS)
    assert 80 < sum(one.continued for one in drawn) < 160
    assert 60 < sum(one.by_exp_run for one in drawn) < 140
    assert len({(one.m, one.seeds, one.methods, one.phases) for one in drawn}) > 200
    assert drawn[0].settings().keys() == {"m", "seeds", "methods", "phases"}
    assert fresh(1) != fresh(2)


RAN = "[1/2] ran     a  0.1 s\n[2/2] ran     b  0.1 s\n"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a repository in which MLflow has a run with two stages, and nothing else."""
    (tmp_path / "p").mkdir()
    workspace = Workspace(tmp_path, tmp_path / "control")
    (workspace.control / "ended").write_text("a\nb\n")
    with closing(sqlite3.connect(tmp_path / "p" / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE runs (run_uuid, status)")
        database.execute("CREATE TABLE tags (run_uuid, key, value)")
        for run in ("parent", "a", "b"):
            database.execute("INSERT INTO runs VALUES (?, 'FINISHED')", (run,))
            if run != "parent":
                database.execute("INSERT INTO tags VALUES (?, 'cached', 'false')", (run,))
                database.execute(
                    "INSERT INTO tags VALUES (?, 'mlflow.parentRunId', 'parent')", (run,)
                )
    return Repository(workspace)


@pytest.mark.parametrize(
    ("done", "problems"),
    [
        (Done(0, RAN), []),
        (Done(1, RAN), ["it ended with status 1"]),
        (Done(0, RAN, hung=True), ["it, or a process that it left, had to be killed"]),
        (Done(0, f'{RAN}  File "a.py", line 1, in f'), ["it shows a traceback"]),
        (
            Done(0, RAN.partition("\n")[0]),
            ["MLflow has 2 stages, and 1 ran", "2 stages ended, and 1 ran"],
        ),
    ],
)
def test_the_judge_compares_what_ran_with_mlflow(
    repository: Repository, done: Done, problems: list[str]
) -> None:
    assert list(repository.look(Run(done, 1, 1), interrupted=False, killed=False)) == problems
    assert repository.stages == 2
    # The same run is not counted again.
    again = list(repository.look(Run(Done(0, ""), 1, 1), interrupted=True, killed=False))
    assert (again, repository.stages) == ([], 2)


FRAME = 'Traceback (most recent call last):\n  File "{}", line 5, in <module>\nKeyboardInterrupt\n'


@pytest.mark.parametrize(
    ("output", "problems"),
    [
        (FRAME.format("/venv/bin/dvc"), []),
        (f"Fatal Python error: init_import_site: Failed\n{FRAME.format('<frozen site>')}", []),
        (FRAME.format("stages/all.py"), ["it shows a traceback"]),
    ],
    ids=["dvc", "Python", "driver"],
)
def test_tracebacks_before_the_drivers_first_line_are_excused(
    repository: Repository, output: str, problems: list[str]
) -> None:
    (repository.workspace.control / "ended").unlink()
    repository.parents = {"parent"}
    run = Run(Done(1, output), 1, 1)
    assert list(repository.look(run, interrupted=True, killed=False)) == problems


def test_the_judge_sees_runs_of_which_mlflow_knows_no_end(repository: Repository) -> None:
    with closing(sqlite3.connect(repository.workspace.root / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET status = 'RUNNING' WHERE run_uuid = 'parent'")
    problems = repository.look(Run(Done(0, RAN), 1, 1), interrupted=False, killed=False)
    assert list(problems) == ["its run in MLflow is not finished"]


def test_the_table_has_a_line_for_each_part(tmp_path: Path) -> None:
    row = dict.fromkeys(("experiments", "interrupted", "advised", "stages", "experiment core s"), 1)
    row |= dict.fromkeys(("no-op core s", "peak MB", "open files", "processes left", "cache MB"), 2)
    row |= dict.fromkeys(("kept by gc MB", ".dvc/tmp files", "MLflow MB", "problems"), 3)
    for _ in range(2):
        append(tmp_path / SOAK, row, list(row))
    assert table(tmp_path).splitlines()[2:] == [f"| {' | '.join('11111222223333')} |"] * 2
