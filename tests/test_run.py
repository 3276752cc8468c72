"""The driver against real DVC, on toy stages that write small files."""
# ruff: noqa: ARG002 - methods of a protocol

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from ast import literal_eval
from collections.abc import Callable, Iterator
from contextlib import chdir, closing, contextmanager
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
import yaml
from dvc.exceptions import ReproductionError
from dvc.repo import Repo
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.graph import Filler
from pipeline.errors import UserError
from pipeline.run import interrupts
from pipeline.run.dvc_files import HEADER, entries, load_stages
from pipeline.run.dvc_graph import DvcGraph
from pipeline.run.file_stamps import file_stamps
from pipeline.run.interfaces import Event, Exit, StageError, Task
from pipeline.run.local import ON_THE_CPU, LocalEngine, Worker, as_module, uses_gpu
from pipeline.run.machine import THREADS, cores, default_gpu_jobs, default_jobs, gpus, grouped
from pipeline.run.progress_view import View
from pipeline.run.scheduler import Scheduler, priorities
from tests.toy import SOURCE, Toy, alive, alone, python, until

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's own


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Toy]:
    alone(monkeypatch, tmp_path)
    return lambda name: Toy(tmp_path / name)


@pytest.fixture
def toy(make: Callable[[str], Toy]) -> Toy:
    return make("toy")


def diamond(toy: Toy, value: str = "") -> None:
    toy.add("zero")
    toy.add("left", "zero")
    toy.add("right", "zero", value=value)
    toy.add("join", "left", "right")
    toy.add("apart")


def test_same_lock_as_dvc(make: Callable[[str], Toy]) -> None:
    ours, plain = make("ours"), make("plain")
    for toy in (ours, plain):
        diamond(toy)
        toy.add("long", "join", value="a 'word' " * 12)
    assert set(ours.execute().ran) == set(ours.stages)
    plain.dvc("reproduce")
    assert ours.lock() == plain.lock()
    ours.ran()
    ours.dvc("reproduce")
    assert ours.ran() == []
    assert ours.lock() == plain.lock()


def test_only_what_changed_runs_and_going_back_runs_nothing(toy: Toy) -> None:
    diamond(toy)
    toy.execute()
    assert toy.ran() == sorted(toy.stages)
    first, lock = toy.value("join"), toy.lock()

    assert set(toy.execute().cached) == set(toy.stages)
    assert toy.ran() == []

    diamond(toy, "other")
    assert set(toy.execute().ran) == {"right", "join"}
    assert toy.ran() == ["join", "right"]
    assert toy.value("join") == first.replace("right\n", "right other\n")

    (toy.root / "code.txt").write_text("new\n")
    toy.execute()
    assert toy.ran() == sorted(toy.stages)

    (toy.root / "code.txt").write_text("code\n")
    diamond(toy)
    assert set(toy.execute().cached) == set(toy.stages)
    assert toy.ran() == []
    assert toy.value("join") == first
    assert toy.lock() == lock


def test_equal_outputs_stop_the_change(toy: Toy) -> None:
    diamond(toy)
    toy.execute()
    toy.ran()
    toy.add("zero", run="true && true")
    toy.execute()
    assert toy.ran() == ["zero"]


def test_git_tracks_the_lock_file_where_dvc_is_told_to(toy: Toy) -> None:
    config = toy.root / ".dvc" / "config"
    config.write_text(config.read_text().replace("[core]\n", "[core]\n    autostage = true\n"))
    toy.add("zero")
    toy.execute()
    listed = ["git", "diff", "--cached", "--name-only"]
    staged = subprocess.run(listed, cwd=toy.root, check=True, capture_output=True, text=True)
    assert "stages/dvc.lock" in staged.stdout.split()


def test_deleted_outputs_are_checked_out(toy: Toy) -> None:
    diamond(toy)
    toy.execute()
    toy.ran()
    before = toy.value("join")
    shutil.rmtree(toy.root / "artifacts")
    assert set(toy.execute().cached) == set(toy.stages)
    assert toy.ran() == []
    assert toy.value("join") == before


def test_lock_forgets_stages_that_are_gone(toy: Toy, make: Callable[[str], Toy]) -> None:
    diamond(toy)
    toy.execute()
    del toy.stages["apart"]
    toy.write()
    toy.execute()
    other = make("other")
    other.stages = toy.stages
    other.write()
    other.execute()
    assert toy.lock() == other.lock()


def test_foreign_lock_is_understood(toy: Toy) -> None:
    diamond(toy)
    toy.execute()
    toy.ran()
    file = toy.root / "stages" / "dvc.lock"
    content = yaml.safe_load(file.read_text())
    file.write_text(json.dumps(content))
    toy.add("more")
    toy.execute()
    assert toy.ran() == ["more"]
    stages = yaml.safe_load(file.read_text())["stages"]
    assert stages.pop("more")
    assert stages == content["stages"]


def test_only_a_lock_file_that_dvc_wrote_is_read_as_text() -> None:
    entry = "  zero:\n    cmd: true\n"
    assert entries("") == {}
    assert entries(HEADER + entry) == {"zero": entry}
    assert entries(entry) is None, "no header"
    assert entries(f"{HEADER}# by hand\n{entry}") is None


def test_independent_stages_overlap_and_dependent_ones_do_not(toy: Toy) -> None:
    stamp = f"{sys.executable} -c 'import time; print(time.time())' >> "
    for name, reads in {"a": (), "b": (), "c": ("a",)}.items():
        toy.add(name, *reads, run=f"{stamp} {name}.time && sleep 0.6 && {stamp} {name}.time")
    toy.execute(jobs=2)
    span = {n: [float(t) for t in (toy.root / f"{n}.time").read_text().split()] for n in "abc"}
    assert max(span["a"][0], span["b"][0]) < min(span["a"][1], span["b"][1])
    assert span["a"][1] < span["c"][0]


def test_failure_leaves_the_others_alone(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    diamond(toy)
    toy.add("left", "zero", run="echo the reason; exit 3")
    summary = toy.execute()
    assert summary.failed == ("left",)
    assert summary.skipped == ("join",)
    assert set(summary.ran) == {"zero", "right", "apart"}
    shown = capsys.readouterr().err
    assert "left failed: exit status 3" in shown
    assert "    the reason\n" in shown
    assert ".dvc/tmp/sms/logs/left.log" in shown
    toy.ran()
    toy.add("left", "zero")
    toy.execute()
    assert toy.ran() == ["join", "left"]


@pytest.mark.parametrize(
    ("run", "reason"),
    [("kill -9 $$", "killed by signal 9"), ("exit 0", "does not exist")],
)
def test_reason_of_failure(
    toy: Toy, capsys: pytest.CaptureFixture[str], run: str, reason: str
) -> None:
    toy.add("bad", run=run)
    assert toy.execute().failed == ("bad",)
    assert reason in capsys.readouterr().err


def test_missing_input_fails_one_stage(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.add("good")
    toy.add("bad", deps=["nowhere.txt"])
    summary = toy.execute()
    assert (summary.ran, summary.failed) == (("good",), ("bad",))
    assert "nowhere.txt" in capsys.readouterr().err


def test_broken_graph_is_one_sentence(toy: Toy) -> None:
    toy.add("a", "b")
    toy.add("b", "a")
    with pytest.raises(UserError, match=r"stages/dvc\.yaml: Same item.*defined as both"):
        toy.execute()


@pytest.mark.parametrize("damage", ["<<<<<<< HEAD\n{}=======\n{}>>>>>>> other\n", "stages: [1]\n"])
def test_conflicts_in_the_lock_file_are_one_sentence_whose_advice_helps(
    toy: Toy, damage: str
) -> None:
    toy.add("zero")
    toy.execute()
    file, lock = toy.root / "stages" / "dvc.lock", toy.lock()
    file.write_text(damage.format(lock.decode(), lock.decode()))
    with pytest.raises(UserError, match=r"^stages/dvc\.lock .* merge: remove it and run again"):
        toy.execute()
    file.unlink()
    assert toy.execute().cached == ("zero",)
    assert toy.lock() == lock


def test_files_are_read_as_dvc_reads_them(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    diamond(toy)
    words = ["on", "y", "0x1f", "12:30", "017", "~x", "true.txt", "\u00e9", "2024-01-01", "1_000"]
    for number, word in enumerate(words):
        toy.add(f"s{number}", "join")
        (toy.root / word).write_text(word)
        toy.stages[f"s{number}"]["deps"].append(word)
    toy.write()
    assert set(toy.execute().ran) == set(toy.stages)
    file = toy.root / "stages" / "dvc.yaml"
    with Repo(str(toy.root)) as repo:
        slow = {stage.name: stage for stage in repo.stage.load_file(str(file))}
        monkeypatch.setattr("dvc.utils.strictyaml.load", None)  # DVC's own parser is not asked
        quick = {stage.name: stage for stage in load_stages(repo, file)}
        monkeypatch.undo()
        assert list(quick) == list(slow)
        for name, stage in quick.items():
            assert stage.dumpd() == slow[name].dumpd()
            assert stage.cmd == slow[name].cmd
            assert not stage.cmd_changed
            files = zip(stage.deps + stage.outs, slow[name].deps + slow[name].outs, strict=True)
            for one, other in files:
                facts = (one.fs_path, one.hash_info, one.meta)
                assert facts == (other.fs_path, other.hash_info, other.meta)
                assert one.hash_info
    assert set(toy.execute().cached) == set(toy.stages)


def test_inputs_count_as_they_were_at_the_start(toy: Toy) -> None:
    """`first` edits its own input, so it is out of date; `second` begins after that, so is not."""
    toy.add("first", run="cp code.txt seen && echo edited > code.txt")
    toy.add("second")
    toy.execute(jobs=1)
    assert toy.ran() == ["first", "second"]
    toy.execute(jobs=1)
    assert toy.ran() == ["first"]
    assert (toy.root / "seen").read_text() == "edited\n"


def test_an_input_rewritten_in_place_at_its_size_is_hashed_again(toy: Toy) -> None:
    """Hashes are kept by time, size and inode, and only the time tells such an edit."""
    toy.add("zero")
    toy.execute()
    code = toy.root / "code.txt"
    with chdir(toy.root), closing(DvcGraph(toy.root)) as graph:
        assert graph.up_to_date().keys() == {"zero"}
        before = code.stat()
        code.write_text("edoc\n")
        os.utime(code, ns=(0, before.st_mtime_ns + 10**6))
        assert (code.stat().st_size, code.stat().st_ino) == (before.st_size, before.st_ino)
        assert graph.up_to_date() == {}
        code.write_text("code\n")
        os.utime(code, ns=(0, before.st_mtime_ns + 2 * 10**6))
        assert graph.up_to_date().keys() == {"zero"}


@pytest.mark.parametrize("folder", [False, True])
def test_stamps_tell_time_size_inode_and_name_apart(tmp_path: Path, folder: bool) -> None:
    file = tmp_path / "folder" / "file"
    file.parent.mkdir()
    stamped = str(file.parent if folder else file)
    seen = set()
    for text, nanoseconds, replaced in (("a", 1, 0), ("a", 2, 0), ("ab", 2, 0), ("ab", 2, 1)):
        if replaced:  # by another file of this size and time
            file.with_name("other").write_text(text)
            file.with_name("other").replace(file)
        file.write_text(text)
        os.utime(file, ns=(0, nanoseconds))
        seen.add(file_stamps(stamped))
    assert len(seen) == 4
    assert file_stamps(stamped) == file_stamps(stamped)
    if folder:
        file.rename(file.with_name("renamed"))
        assert file_stamps(stamped) not in seen


def test_killed_driver_takes_its_workers_along_and_loses_nothing(toy: Toy) -> None:
    toy.add("done")
    toy.add("slow", "done", run="(sleep 60 & echo $! > pid; wait)")
    with toy.driver() as driver:
        until((toy.root / "pid").exists)
        until((toy.root / "pid").read_text)
        sleeper = int((toy.root / "pid").read_text())
        assert alive(sleeper)
        driver.kill()
    until(lambda: not alive(sleeper), 5)
    assert toy.ran() == ["done", "slow"]
    toy.add("slow", "done")
    toy.execute()
    assert toy.ran() == ["slow"]


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """Give a signal that is not ignored here, as it is in the background of a script."""
    before = signal.signal(request.param, signal.default_int_handler)
    yield request.param
    signal.signal(request.param, before)


def test_stop_keeps_what_is_done(toy: Toy, number: signal.Signals) -> None:
    toy.add("done")
    toy.add("slow", "done", run="(sleep 60 & echo $! > pid; wait)")
    toy.add("later", "slow")
    with toy.driver() as driver:
        until((toy.root / "pid").exists)
        until((toy.root / "pid").read_text)
        driver.send_signal(number)
        if number == signal.SIGTERM:  # at the end of dvc there is one for each of its threads
            for _ in range(3):
                time.sleep(0.02)
                driver.send_signal(number)
        _, shown = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "1 stages are done and kept, 2 are left" in shown
    assert not alive(int((toy.root / "pid").read_text()))
    assert yaml.safe_load(toy.lock())["stages"].keys() == {"done"}


SIGTERM = "os.kill(os.getpid(), signal.SIGTERM)"
IMPORTING = (
    "import os, runpy, signal, sys\n"
    "class Finder:\n"
    "    def find_spec(self, name, path, target=None):\n"
    "        if name == 'pipeline.config':\n"
    "            {}\n"
    "sys.meta_path.insert(0, Finder())\n"
    "runpy.run_module('stages.all', run_name='__main__')\n"
)
AS_DRIVER = (
    "import os, signal, sys, time, pipeline.repro, pipeline.__main__ as m\n"
    "from pipeline.run import interrupts\n"
    # A shell's background process ignores it, and so would this one.
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "{}\n"
    "sys.argv[1:] = ['run']\n"
    "with interrupts.stoppable():\n"
    "    m.main()\n"
)


@pytest.mark.parametrize(
    "code",
    [
        "import sys, pipeline.__main__ as m\n"
        "def report():\n"
        "    raise KeyboardInterrupt\n"
        "m._report = report\n"
        "sys.argv[1:] = ['report']\n"
        "m.main()\n",
        IMPORTING.format("raise KeyboardInterrupt"),
        IMPORTING.format(SIGTERM),
        AS_DRIVER.format(f"m.argparse.ArgumentParser = lambda **_: {SIGTERM}"),
        AS_DRIVER.format(f"pipeline.repro.repro = lambda root: {SIGTERM}"),
        AS_DRIVER.format(
            f"def repro(root):\n    try:\n        {SIGTERM}\n    finally:\n        {SIGTERM}\n"
            "pipeline.repro.repro = repro"
        ),
        AS_DRIVER.format(  # as a generator of DVC does, and a thread cannot start any more
            "import threading\n"
            "def generator():\n"
            "    try:\n"
            "        yield\n"
            "    finally:\n"
            "        threading.Thread(target=print).start()\n"
            "m.kept = generator()\n"
            "next(m.kept)\n"
            f"pipeline.repro.repro = lambda root: {SIGTERM}"
        ),
        AS_DRIVER.format(
            "def repro(root):\n"
            "    try:\n"
            "        os.kill(os.getpid(), signal.SIGINT)\n"
            "        end = time.monotonic() + 60\n"
            "        while time.monotonic() < end: pass  # another thread may have received it\n"
            "    except KeyboardInterrupt as error:\n"
            "        raise ValueError('the schema is wrong') from error\n"
            "pipeline.repro.repro = repro"
        ),
        AS_DRIVER.format(
            "class Store:\n"
            "    def __del__(self):\n"
            f"        {SIGTERM}\n"
            "def repro(root):\n"
            "    Store()\n"
            "    time.sleep(60)\n"
            "pipeline.repro.repro = repro"
        ),
        AS_DRIVER.format(
            f"import atexit; atexit.register(lambda: {SIGTERM})\n"
            "def repro(root): raise KeyboardInterrupt\n"
            "pipeline.repro.repro = repro"
        ),
    ],
    ids=[
        "while reporting",
        "while importing",
        "SIGTERM while importing",
        "SIGTERM at the command line",
        "SIGTERM while planning",
        "SIGTERM twice",
        "a generator that is interrupted",
        "SIGINT that a library turns into its own error",
        "SIGTERM while an object is deleted",
        "SIGTERM at the end",
    ],
)
def test_an_interruption_outside_the_stages_is_one_sentence(tmp_path: Path, code: str) -> None:
    (tmp_path / "params.yaml").touch()
    done = python(code, tmp_path)
    assert (done.returncode, done.stderr) == (130, interrupts.STOPPED)


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh"])
def test_the_driver_is_a_child_of_dvc_in_any_shell(tmp_path: Path, shell: str) -> None:
    """Otherwise the end of dvc does not end the driver."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    command = yaml.safe_load((SOURCE / "dvc.yaml").read_text())["stages"]["soups"]["cmd"]
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "run").write_text("#!/bin/sh\necho $PPID\n")
    (tmp_path / "stages" / "run").chmod(0o755)
    done = subprocess.run(
        [shell, "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == os.getpid()


def test_ctrl_c_at_the_first_import_is_one_sentence(tmp_path: Path) -> None:
    code = IMPORTING.format("raise KeyboardInterrupt").replace(
        "pipeline.config", "pipeline.process"
    )
    done = python(code, tmp_path)
    assert (done.returncode, done.stderr) == (130, "stopped: no stage was started\n")


def test_a_second_ctrl_c_is_one_sentence(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Scheduler) -> None:
        raise KeyboardInterrupt

    toy.add("a")
    monkeypatch.setattr(Scheduler, "run", interrupted)
    with pytest.raises(SystemExit, match="130"):
        toy.execute()
    assert capsys.readouterr().err == interrupts.STOPPED


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's end")
def test_a_driver_whose_dvc_is_killed_while_it_plans_stops(tmp_path: Path) -> None:
    child = (
        "import pathlib, time\n"
        "from pipeline.run import interrupts\n"
        "interrupts.stop_by_signals()\n"
        "pathlib.Path('ready').touch()\n"
        "try:\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    pathlib.Path('stopped').touch()\n"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SOURCE), "DVC_STAGE": "soups"},
    ) as process:
        until((tmp_path / "ready").exists)
        process.kill()
    until((tmp_path / "stopped").exists, 5)


def test_the_list_of_files_in_use_is_whole_after_a_kill(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC refuses every command where it is not."""
    toy.add("a")
    toy.add("b", "a")
    file, seen = toy.root / ".dvc" / "tmp" / "rwlock", []

    def watched(lock: object, stream: IO[str]) -> None:
        before = file.read_text() if file.exists() else None
        json.dump(lock, stream)
        stream.flush()
        seen.append((before, file.read_text() if file.exists() else None))

    monkeypatch.setattr("dvc.rwlock.json", SimpleNamespace(**vars(json) | {"dump": watched}))
    assert toy.execute().ran == ("a", "b")
    assert all(before == during for before, during in seen)
    used = [json.loads(before) for before, _ in seen if before]
    assert any(str(toy.root / "artifacts" / "b") in lists.get("write", {}) for lists in used)
    assert [file.name for file in file.parent.glob(".*.tmp")] == []


def test_dvc_works_beside_a_run_but_not_on_its_stages(toy: Toy) -> None:
    toy.add("slow", run="touch begun && sleep 60")
    toy.add("other")
    with toy.driver():
        until((toy.root / "begun").exists)
        until((toy.root / "stages" / "dvc.lock").exists)
        assert toy.dvc("status", "stages/dvc.yaml:other") == {}
        with pytest.raises(ReproductionError) as error:
            toy.dvc("reproduce", "stages/dvc.yaml:slow")
        assert "busy" in str(error.value.__cause__)


def test_shared_inputs_are_in_the_lock_while_stages_read_them(toy: Toy) -> None:
    """DVC's read-write lock has each path once, also of inputs that several stages read."""
    for name in ("a", "b", "c"):
        toy.add(name)
    file = toy.root / ".dvc" / "tmp" / "rwlock"

    def locked() -> list[list[str]]:
        lock = json.loads(file.read_text())
        return [[Path(path).name for path in lock.get(mode, {})] for mode in ("read", "write")]

    with chdir(toy.root), closing(DvcGraph(toy.root)) as graph, graph.bookkeeping():
        graph.begin("a")
        graph.begin("b")
        assert locked() == [["code.txt"], ["a", "b"]]
        graph.release("a")
        graph.begin("c")
        assert locked() == [["code.txt"], ["b", "c"]]
        for name in ("b", "c"):
            graph.release(name)
        assert locked() == [[], []]


MODULE = """
import os, random, sys
from pathlib import Path
import stages.helper
assert __name__ == "__main__"
print("told", flush=True)
random.seed(7)
out = Path(sys.argv[1])
out.mkdir(parents=True)
facts = [sys.argv[1:], sys.path[0], os.getcwd(), random.random(), stages.helper.VALUE]
facts += sorted((k, v) for k, v in os.environ.items() if k.startswith(("SMS_T", "OMP", "DVC_")))
out.joinpath("facts").write_text(repr(facts))
sys.exit(int(sys.argv[2]))
"""


def modules(toy: Toy, status: str = "0") -> None:
    shutil.copy(SOURCE / "stages" / "run", toy.root / "stages" / "run")
    (toy.root / "stages" / "__init__.py").touch()
    (toy.root / "stages" / "helper.py").write_text("VALUE = 1\n")
    (toy.root / "stages" / "toy.py").write_text(MODULE)
    toy.stages["m"] = {
        "cmd": f"stages/run toy artifacts/m {status} 'two words'",
        "wdir": "..",
        "deps": ["code.txt"],
        "outs": ["artifacts/m"],
    }
    toy.write()


def test_forked_and_plain_workers_agree(toy: Toy) -> None:
    modules(toy)
    found = []
    for preload in (("json",), ("no_such_module",), None):
        shutil.rmtree(toy.root / ".dvc" / "cache", ignore_errors=True)
        engine = LocalEngine(toy.root, 2, preload)
        assert toy.execute(engine=engine).ran == ("m",)
        assert engine.log("m").read_text() == "told\n"
        found.append((toy.root / "artifacts" / "m" / "facts").read_text())
    assert found[0] == found[1] == found[2]
    assert "two words" in found[0]


def test_exit_status_of_a_forked_worker(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    modules(toy, "4")
    assert toy.execute(engine=LocalEngine(toy.root, 2, ())).failed == ("m",)
    assert "m failed: exit status 4\n    told\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("MemoryError()", "not enough memory for this stage (MemoryError): run fewer stages"),
        (
            'RuntimeError("DefaultCPUAllocator: can\'t allocate memory: 8 bytes\\nframes")',
            "not enough memory for this stage (DefaultCPUAllocator: can't allocate memory: 8",
        ),
        (
            'RuntimeError("could not create a primitive")',
            "not enough memory for this stage (could not create a primitive): run fewer stages",
        ),
        ("KeyboardInterrupt()", "interrupted by SIGINT"),
    ],
)
def test_a_worker_without_memory_is_one_sentence(
    toy: Toy, capsys: pytest.CaptureFixture[str], error: str, sentence: str
) -> None:
    modules(toy)
    (toy.root / "stages" / "toy.py").write_text(f"raise {error}\n")
    assert toy.execute(engine=LocalEngine(toy.root, 2, ())).failed == ("m",)
    shown = capsys.readouterr().err
    assert f"    error: {sentence}" in shown
    assert "Traceback" not in shown


def test_project_modules_are_imported_afresh(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the project that was imported beforehand may be older than what DVC hashed."""
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))  # where there is another package `stages`
    modules(toy)
    engine = LocalEngine(toy.root, 1, ("stages", "pipeline.errors"))
    assert toy.execute(engine=engine).ran == ("m",)


def test_death_of_the_fork_server(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    modules(toy)
    killer = toy.root / "stages" / "helper.py"
    killer.write_text(
        "import os, signal\n"
        "VALUE = 1\n"
        "if not os.path.exists('once'):\n"
        "    open('once', 'w').close()\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n"
        "    signal.pause()\n"
    )
    assert toy.execute(engine=LocalEngine(toy.root, 2, ())).ran == ("m",)
    assert (toy.root / "once").exists()
    assert capsys.readouterr().err == (
        "warning: the process that starts stages ended early with status -9, and with it 1 stages, "
        "which start once more\n"
    )


def test_commands_that_need_a_shell() -> None:
    plain = as_module(["stages/run retrain --rate 1e-3 --name 'a b'"])
    assert plain == {
        "module": "stages.retrain",
        "arguments": ["--rate", "1e-3", "--name", "a b"],
    }
    for command in (
        "stages/run retrain | tee log",
        "stages/run retrain $HOME",
        "stages/run retrain *.txt",
        "stages/run retrain ~",
        "stages/run retrain && true",
        "stages/run retrain 'a",
        "A=1 stages/run retrain",
        "stages/run",
        "stages/running retrain",
    ):
        assert as_module([command]) is None
    assert as_module(["stages/run a", "stages/run b"]) is None


def gpus_of_three_stages(toy: Toy) -> list[str]:
    """Run three stages that are ready at once; return the GPUs that each was given."""
    for name in "abc":
        toy.add(name, run=f"echo $CUDA_VISIBLE_DEVICES >> {name}.gpu; sleep 0.3")
    toy.execute(jobs=8)
    return [(toy.root / f"{name}.gpu").read_text().strip() for name in "abc"]


def test_gpus_are_shared_out(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus({"CUDA_VISIBLE_DEVICES": "3, 5"}) == ["3", "5"]
    assert gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    used = gpus_of_three_stages(toy)
    assert set(used[:2]) == {"3", "5"}
    assert used[2] in {"3", "5"}


def test_gpus_are_shared_out_in_groups(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert grouped(["3", "5", "7"], 2) == ["3,5"]
    assert grouped([], 2) == []
    with pytest.raises(UserError, match="SMS_GPUS_PER_STAGE is 2, but must be at most 1"):
        grouped(["0"], 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    monkeypatch.setenv("SMS_GPUS_PER_STAGE", "2")
    used = gpus_of_three_stages(toy)
    assert set(used[:2]) == {"0,1", "2,3"}
    assert used[2] in {"0,1", "2,3"}


def test_processes_that_train_together_share_the_cores(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.run.machine.cores", lambda: 16)
    assert default_jobs() == 16
    monkeypatch.setenv("SMS_GPUS_PER_STAGE", "4")
    assert default_jobs() == 4
    monkeypatch.setenv("SMS_GPUS_PER_STAGE", "0")
    with pytest.raises(UserError, match="SMS_GPUS_PER_STAGE is '0'"):
        default_jobs()


SCRIPT = """
import os, sys, time
from pathlib import Path
begun = time.time()
time.sleep(0.5)
out = Path(sys.argv[-1])
out.mkdir(parents=True)
facts = [begun, time.time(), os.environ["CUDA_VISIBLE_DEVICES"]]
out.joinpath("facts").write_text(repr(facts))
"""


def test_stages_on_the_cpu_run_beside_a_full_gpu(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first in line need the one GPU; `c` and `d`, behind them, start at once."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6")
    modules(toy)
    toy.stages.clear()
    for name, script in {"a": "merge", "b": "merge", "c": "prune", "d": "merge"}.items():
        (toy.root / "stages" / f"{script}.py").write_text(SCRIPT)
        device = "--device cpu " if name == "d" else ""
        toy.stages[name] = {
            "cmd": f"stages/run {script} {device}--out artifacts/{name}",
            "wdir": "..",
            "deps": ["code.txt"],
            "outs": [f"artifacts/{name}"],
        }
    toy.add("after", "a", "b", run="sleep 0.01")
    toy.execute(engine=LocalEngine(toy.root, 2, ()))
    facts = {n: literal_eval((toy.root / "artifacts" / n / "facts").read_text()) for n in "abcd"}
    assert {name: found[2] for name, found in facts.items()} == {
        "a": "6",
        "b": "6",
        "c": "",
        "d": "",
    }
    gpu = sorted(facts[name][:2] for name in "ab")
    assert gpu[0][1] <= gpu[1][0], "one at a time on the GPU"
    assert all(facts[name][0] < gpu[0][1] for name in "cd"), "beside the first on the GPU"


def test_several_stages_share_a_gpu(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    task = Task(("true",), toy.root, "a", gpu=True)
    for asked, default, jobs, slots in [
        (None, 1, 8, 2),
        (None, 4, 8, 8),
        (None, 4, 3, 3),
        ("3", 1, 8, 6),
        ("1", 4, 8, 2),
    ]:
        monkeypatch.delenv("SMS_GPU_JOBS", raising=False)
        if asked:
            monkeypatch.setenv("SMS_GPU_JOBS", asked)
        engine = LocalEngine(toy.root, jobs, None, gpu_jobs=default)
        monkeypatch.setattr(engine, "_launch", lambda _: None)
        started = []
        while engine.free(gpu=True):
            started.append(f"s{len(started)}")
            engine.start(started[-1], task)
        assert len(started) == slots
        used = [worker.device for worker in engine.tasks.values()]
        assert abs(used.count("0") - used.count("1")) <= 1
        assert engine.free(gpu=False), "the cores are free"
    monkeypatch.setenv("SMS_GPU_JOBS", "none")
    with pytest.raises(UserError, match="SMS_GPU_JOBS is 'none'"):
        LocalEngine(toy.root, 2)


def test_small_networks_share_a_gpu_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMS_GPUS_PER_STAGE", raising=False)
    assert default_gpu_jobs("resnet8", 8) == default_gpu_jobs("resnet20", 32) == 4
    assert default_gpu_jobs("resnet20", 64) == 1
    for large in ("resnet18", "wrn20", "t5small", "torchvision.resnet50"):
        assert default_gpu_jobs(large, 32) == 1
    monkeypatch.setenv("SMS_GPUS_PER_STAGE", "2")
    assert default_gpu_jobs("resnet20", 32) == 1


def test_scripts_on_the_cpu_are_those_without_a_device() -> None:
    scripts = {file.stem for file in (SOURCE / "stages").glob("*.py")} - {"__init__", "all"}
    flags = {n: import_module(f"stages.{n}").parser._option_string_actions for n in scripts}
    assert {name for name, known in flags.items() if "--device" not in known} == ON_THE_CPU
    assert not uses_gpu(["stages/run prune --out a"])
    assert uses_gpu(["stages/run merge --out a"])
    assert not uses_gpu(["stages/run merge --device cpu --out a"])
    assert uses_gpu(["python train.py"])


THREADED = """
import argparse, os, torch
from pathlib import Path
from pipeline.stagekit.cli import atomic_folder, run
from pipeline.run.machine import THREADS
parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path)
def main(flags):
    facts = [torch.get_num_threads(), *(os.environ.get(name) for name in THREADS[1:])]
    with atomic_folder(flags.out) as folder:
        (folder / "facts").write_text(repr(facts))
run(main, parser)
"""


@pytest.mark.parametrize("asked", [None, "3"])
def test_threads_do_not_depend_on_who_runs_a_stage(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, asked: str | None
) -> None:
    """One job on 16 cores, several, and plain DVC: all with one thread, or as many as asked for."""
    monkeypatch.setattr("pipeline.run.machine.cores", lambda: 16)
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    monkeypatch.setenv("SMS_PYTHON", sys.executable)
    for variable in THREADS:
        monkeypatch.delenv(variable, raising=False)
    if asked:
        monkeypatch.setenv("SMS_THREADS", asked)
    modules(toy)
    (toy.root / "stages" / "toy.py").write_text(THREADED)
    toy.stages["m"]["cmd"] = "stages/run toy --out artifacts/m"
    toy.write()
    found = []
    for run in (lambda: toy.execute(jobs=1), lambda: toy.dvc("reproduce")):
        shutil.rmtree(toy.root / ".dvc" / "cache", ignore_errors=True)
        shutil.rmtree(toy.root / "artifacts", ignore_errors=True)
        run()
        found.append(literal_eval((toy.root / "artifacts" / "m" / "facts").read_text()))
    number = asked or "1"
    assert found == [[int(number), *[number] * (len(THREADS) - 1)]] * 2


@pytest.mark.parametrize("text", ["0", "-2", "many"])
def test_number_of_jobs_is_checked(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SMS_JOBS", "3")
    assert default_jobs() == 3
    monkeypatch.setenv("SMS_JOBS", text)
    with pytest.raises(UserError, match=f"SMS_JOBS is {text!r}"):
        default_jobs()


def test_cores_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5} if pid == 0 else {0})
    monkeypatch.setattr("pipeline.run.machine.CGROUP", Path("/nowhere"))
    assert cores() == 3
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert cores() == 8


class Notes:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def started(self, name: str) -> None:
        self.heard.append(("started", name))

    def event(self, name: str, fields: dict[str, Any]) -> None:
        self.heard.append(("event", name, fields))

    def finished(self, name: str, outcome: str, seconds: float) -> None:
        self.heard.append(("finished", name, outcome))


class Broken(Notes):
    """A listener that fails."""

    def started(self, name: str) -> None:
        raise RuntimeError("no database")


def test_listeners_hear_everything(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    lines = '{"epoch": 1}\nnonsense\n{"epoch": 2}\n'
    toy.add("a", run=f"printf '{lines}' >> $SMS_EVENTS".replace("\n", "\\n"))
    notes = Notes()
    toy.execute(listeners=[Broken(), notes])
    toy.execute(listeners=[notes])
    assert notes.heard == [
        ("started", "a"),
        ("event", "a", {"epoch": 1}),
        ("event", "a", {"epoch": 2}),
        ("finished", "a", "ran"),
        ("finished", "a", "cached"),
    ]
    assert "warning: Broken is off" in capsys.readouterr().err


def test_plain_view(capsys: pytest.CaptureFixture[str]) -> None:
    with View(4) as view:
        view.finished("a", "cached", 0.0)
        view.started("b")
        view.event("b", {"epoch": 1, "epochs": 2, "loss": 0.5})
        view.event("b", {"val_accuracy": 0.97123})
        view.finished("b", "ran", 4.123)
        view.finished("c", "failed", 1.0)
        view.finished("d", "skipped", 0.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-1] == [
        "[1/4] cached  1 stages",
        "[2/4] ran     b  4.1 s  val_accuracy 0.9712",
        "[3/4] failed  c  1.0 s",
        "[4/4] skipped d",
    ]
    assert lines[-1].startswith("1 ran, 1 cached, 1 failed, 1 skipped; 0:0")


def test_events_are_read_once_each_as_their_lines_end(tmp_path: Path) -> None:
    worker = Worker("a", Task((), tmp_path, "a", gpu=False), tmp_path / "events")
    assert worker.events() == []
    for text, heard in (
        ('{"epoch": 1}\n{"epo', [{"epoch": 1}]),
        ('ch": 2}\nnonsense\n[3]\n', [{"epoch": 2}]),
        ('{"epoch": 4}', []),
        ("\n", [{"epoch": 4}]),
    ):
        with worker.reports.open("a") as file:
            file.write(text)
        assert worker.events() == heard
    assert worker.events() == []


def test_the_table_is_shown_on_a_terminal_and_removed_at_the_end() -> None:
    view = View(2)
    view.console = Console(file=StringIO(), force_terminal=True, width=80)
    with view:
        assert view.live is not None
        assert view.live.is_started
        live = view.live
    assert not live.is_started


def test_skipped_stages_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with View(7) as view:
        view.finished("a", "failed", 1.0)
        for name in "bcdef":
            view.finished(name, "skipped", 0.0)
        view.finished("g", "cached", 0.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-1] == [
        "[1/7] failed  a  1.0 s",
        "[6/7] skipped b, c, d and 2 more",
        "[7/7] cached  1 stages",
    ]


def test_a_run_that_never_began_leaves_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError), View(3):
        raise UserError("SMS_JOBS is 0")
    assert capsys.readouterr().out == ""


class Memory:
    """A graph and an engine in memory: stages of ``cached`` are there, those of ``bad`` fail."""

    def __init__(
        self, inputs: dict[str, list[str]], slots: int, cached: set[str], bad: set[str]
    ) -> None:
        self.inputs, self.slots, self.cached, self.bad = inputs, slots, cached, bad
        self.gpu = {name for name in inputs if name.endswith(("1", "4", "7"))}
        self.draw = random.Random(0)
        self.running: list[str] = []
        self.over: set[str] = set()
        self.flushed: set[str] = set()

    @contextmanager
    def bookkeeping(self) -> Iterator[bool]:
        yield self.draw.random() < 0.7
        assert self.flushed == self.over  # or `dvc gc` would remove their objects

    def restore(self, name: str) -> bool:
        assert self.over.issuperset(self.inputs[name])
        if name in self.cached:
            self.over.add(name)
        return name in self.cached

    def begin(self, name: str) -> Task:
        if name in self.bad and len(name) % 2:
            raise StageError("no input")
        return Task((name,), Path(), name, name in self.gpu)

    def keep(self, name: str) -> None:
        self.over.add(name)

    def release(self, name: str) -> None:
        assert name in self.bad

    def flush(self) -> None:
        self.flushed |= self.over

    def free(self, *, gpu: bool) -> bool:
        return sum((name in self.gpu) == gpu for name in self.running) < self.slots

    def start(self, name: str, task: Task) -> None:
        assert self.free(gpu=task.gpu)
        self.running.append(name)

    def wait(self, seconds: float) -> list[Event | Exit]:
        if not self.running or self.draw.random() < 0.3:
            return []
        name = self.running.pop(self.draw.randrange(len(self.running)))
        return [Exit(name, 1 if name in self.bad else 0)]

    def stop(self, seconds: float) -> None:
        assert not self.running

    def log(self, name: str) -> Path:
        return Path(name)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    names = [f"s{number}" for number in range(draw(st.integers(0, 12)))]
    return {
        name: draw(st.lists(st.sampled_from(names[:place]), unique=True)) if place else []
        for place, name in enumerate(names)
    }


@given(graphs(), st.integers(1, 3), st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11)))
def test_loop_runs_every_graph(
    inputs: dict[str, list[str]], slots: int, cached: set[int], bad: set[int]
) -> None:
    memory = Memory(inputs, slots, {f"s{n}" for n in cached}, {f"s{n}" for n in bad - cached})
    summary = Scheduler(memory, memory, Notes(), lambda: False).run()
    expected: dict[str, str] = {}
    for name, reads in inputs.items():
        if any(expected[read] in {"failed", "skipped"} for read in reads):
            expected[name] = "skipped"
        else:
            expected[name] = (
                "cached" if name in memory.cached else "failed" if name in memory.bad else "ran"
            )
    found = {name: kind for kind, names in vars(summary).items() for name in names}
    assert found == expected
    assert sum(map(len, vars(summary).values())) == len(inputs)
    assert memory.over == {n for n, kind in expected.items() if kind in {"ran", "cached"}}


def test_longest_chain_goes_first() -> None:
    inputs = {"short": [], "a": [], "b": ["a"], "c": ["b"]}
    readers = {"short": [], "a": ["b"], "b": ["c"], "c": []}
    assert [turn.name for turn in sorted(priorities(inputs, readers).values())] == [
        "a",
        "b",
        "short",
        "c",
    ]


class Waiting(Memory):
    """An engine whose tasks go on."""

    def wait(self, seconds: float) -> list[Event | Exit]:
        return []

    def stop(self, seconds: float) -> None:
        pass

    def release(self, name: str) -> None:
        pass


def test_a_full_queue_holds_up_only_its_own_kind() -> None:
    """Of s1 and s4, for the GPU, and s0 to s5, for the CPU, the first of each kind starts."""
    inputs: dict[str, list[str]] = {"s1": [], "s4": [], "s0": [], "s5": [], "s6": ["s4"]}
    waiting = Waiting(inputs, 1, set(), set())
    ticks = iter(range(500))
    Scheduler(waiting, waiting, Notes(), lambda: next(ticks) > 400).run()
    assert waiting.running == ["s4", "s0"]  # s4 first, because s6 waits for it


TRAINING = """
import sys, torch
from pathlib import Path
torch.manual_seed(0)
torch.set_num_threads(2)
model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(14400, 10)
)
optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
for _ in range(5):
    loss = model(torch.randn(32, 3, 32, 32)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
out = Path(sys.argv[1])
out.mkdir(parents=True)
bits = [parameter.detach().numpy().tobytes() for parameter in model.parameters()]
out.joinpath("facts").write_bytes(b"".join(bits))
"""


@pytest.mark.slow
def test_forked_workers_train_to_the_same_bits(toy: Toy) -> None:
    modules(toy)
    (toy.root / "stages" / "toy.py").write_text(TRAINING)
    found = []
    for engine in (LocalEngine(toy.root, 1), LocalEngine(toy.root, 1, None)):
        shutil.rmtree(toy.root / ".dvc" / "cache", ignore_errors=True)
        assert toy.execute(engine=engine).ran == ("m",)
        found.append((toy.root / "artifacts" / "m" / "facts").read_bytes())
    assert found[0] == found[1]


@pytest.mark.gpu
def test_forked_workers_reach_their_gpu(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    modules(toy)
    (toy.root / "stages" / "toy.py").write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        "Path(sys.argv[1]).mkdir(parents=True)\n"
        "assert torch.cuda.device_count() == 1\n"
        "total = torch.ones(3, device='cuda').sum().item()\n"
        "(Path(sys.argv[1]) / 'facts').write_text(str(total))\n"
    )
    assert toy.execute(engine=LocalEngine(toy.root, 1)).ran == ("m",)
    assert (toy.root / "artifacts" / "m" / "facts").read_text() == "3.0"


class Collector(Filler):
    """An engine beside which `dvc gc -w` runs whenever the repository lock is free."""

    def wait(self, seconds: float) -> list[Event | Exit]:
        collect = [sys.executable, "-m", "dvc", "gc", "-q", "-w", "-f"]
        subprocess.run(collect, cwd=self.root, check=True)
        return super().wait(seconds)


def test_a_garbage_collection_takes_nothing_of_the_run_beside_it(toy: Toy) -> None:
    diamond(toy)
    assert set(toy.execute(engine=Collector(toy.root)).ran) == toy.stages.keys()
    assert set(toy.execute().cached) == toy.stages.keys()


def test_the_graph_benchmark_fills_a_graph(toy: Toy) -> None:
    toy.write()
    assert set(toy.execute(engine=Filler(toy.root)).ran) == toy.stages.keys()
    assert set(toy.execute().cached) == toy.stages.keys()


@pytest.mark.slow
def test_no_op_over_many_stages_takes_seconds(toy: Toy) -> None:
    for number in range(200):
        toy.stages.clear() if not number else None
        name, reads = f"s{number}", [f"s{number // 2}"] if number > 1 else []
        toy.stages[name] = {
            "cmd": f"mkdir -p artifacts/{name} && echo {number} > artifacts/{name}/value",
            "wdir": "..",
            "deps": ["code.txt", *(f"artifacts/{read}" for read in reads)],
            "outs": [f"artifacts/{name}"],
        }
    toy.write()
    seconds = []
    for outcome in ("ran", "cached"):
        begun = time.monotonic()
        assert len(getattr(toy.execute(), outcome)) == 200
        seconds.append(time.monotonic() - begun)
    sys.stdout.write(f"200 stages: {seconds[0]:.1f} s, again {seconds[1]:.1f} s\n")
    assert seconds[1] < 30
