"""DVC's files: the text of stages against DVC's own, byte by byte, and what loading leaves."""

import gc
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from dvc.stage.cache import _get_stage_hash
from dvc.utils.serialize import dumps_yaml

from pipeline.run import dvc_files
from pipeline.run.dvc_cache import save_run
from pipeline.run.dvc_text import lock_entry, text
from tests.toy import Toy, alone

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's own
LONG = "stages/run retrain --data artifacts/data " + "--rate 1e-3 'a b' " * 9
FILE = OrderedDict(path="stages/a b: c.py", hash="md5", md5="1e5", size=1)
FOLDER = {
    "path": f"artifacts/{'word ' * 30}",
    "hash": "md5",
    "md5": "07.dir",
    "size": 0,
    "nfiles": 2,
}
NESTED = {"path": "d", "files": [{"relpath": "x", "md5": "1"}], "isexec": True}
STAGES: list[dict[str, Any]] = [
    {"cmd": LONG, "deps": [FILE, FOLDER, dict(FILE)], "outs": [dict(FOLDER)]},
    {"cmd": [LONG, "true"], "deps": [], "outs": [NESTED, FILE]},
    {"cmd": "a\nb\n", "params": {"params.yaml": {"on": True, "m": 1.0, "l": [1, 2]}}},
    {"cmd": "é # no", "deps": [{"path": "1", "size": True}, {"path": "1", "size": 1}]},
]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["s0-p1-c0", "1", "on", "a" * 200])
def test_text_is_that_of_dvc(stage: dict[str, Any], name: str) -> None:
    for _ in range(2):  # the second time from what is kept
        assert text(stage) == dumps_yaml(stage)
        assert "stages:\n" + lock_entry({name: stage}) == dumps_yaml({"stages": {name: stage}})


def test_run_cache_is_that_of_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch, tmp_path)
    toy = Toy(tmp_path / "toy")
    toy.add("zero", value=LONG)
    toy.execute()
    runs = toy.root / ".dvc" / "cache" / "runs"
    (ours,) = (file for file in runs.rglob("*") if file.is_file())
    written = ours.read_bytes()
    monkeypatch.chdir(toy.root)
    with Repo() as repo:
        (stage,) = repo.index.stages
        shutil.rmtree(runs)
        repo.stage_cache.save(stage)
        assert ours.read_bytes() == written
        ours.write_text("damaged: [")
        save_run(repo.stage_cache, stage)
        assert ours.read_bytes() == written
        assert ours.parent.name == _get_stage_hash(stage)


def test_garbage_of_loading_is_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector is off while a graph is loaded, but what DVC leaves of its stages goes."""
    alone(monkeypatch, tmp_path)
    toy = Toy(tmp_path / "toy")
    toy.stages = {f"s{n}": {"cmd": "true", "deps": ["code.txt"]} for n in range(301)}
    toy.write()
    left = {}
    for each in (100, 1000):
        monkeypatch.setattr(dvc_files, "YOUNG", each)
        with Repo(str(toy.root)) as repo, dvc_files.no_collection():
            gc.collect()
            stages = dvc_files.load_stages(repo, toy.root / "stages" / "dvc.yaml")
            left[each] = gc.collect()
        assert len(stages) == 301
    assert left[100] < 0.2 * left[1000]
