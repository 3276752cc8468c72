"""Raw data that DVC does not hash: names and sizes of its files stand in a command."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import registry
from pipeline.config import experiment
from pipeline.plan import dvc_yaml, measurements, raw_data
from pipeline.plan.build import build
from pipeline.plan.plan import Stage

ROOT = Path(__file__).parent.parent
# What each recipe watches by a hash; the others need none.
WATCHED = {
    "camvid_pspnet": "camvid",
    "celeba_resnet18": "celeba",
    "cityscapes_pspnet": "cityscapes",
    "imagenet_resnet50": "imagenet",
    "multi30k_t5small": "multi30k",
    "wmt16_t5small": "wmt16",
}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """Return an empty project."""
    for module in (raw_data, measurements):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def put(file: Path, text: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def stage(root: Path, recipe: str, more: str = "", name: str = "data") -> Stage:
    """Return a stage that the recipe plans in the project ``root``."""
    text = f"recipe: {recipe}\nseed: 0\nm: 2\nmethods: [imp]\nmerge: [uniform]\n{more}"
    put(root / "params.yaml", text)
    return build(experiment.load(root / "params.yaml")).nodes[name]


@pytest.mark.parametrize("recipe", WATCHED)
def test_files_added_to_a_data_set_change_the_command_and_others_do_not(root, recipe):
    assert "listing" not in stage(root, recipe).arguments, "an absent folder is the stage's to name"
    part = root / "data" / WATCHED[recipe]
    put(part / "a" / "1.jpg", "one")
    before = dvc_yaml.command(stage(root, recipe))
    put(root / "data" / "other" / "1.jpg", "another data set's")
    put(part / "a" / ".hidden", "nobody reads it")
    os.utime(part / "a" / "1.jpg", (0, 0))
    assert dvc_yaml.command(stage(root, recipe)) == before
    seen = {tuple(before)}
    for file, text in (("a/2.jpg", ""), ("b/3.jpg", ""), ("a/1.jpg", "longer")):
        put(part / file, text)
        seen.add(tuple(dvc_yaml.command(stage(root, recipe))))
    (part / "a" / "2.jpg").rename(part / "a" / "4.jpg")
    seen.add(tuple(dvc_yaml.command(stage(root, recipe))))
    assert len(seen) == 5
    assert [word.split()[0] for word in before].count("--listing") == 1


@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        ("digits", ""),
        ("cifar10_resnet18", ""),
        ("cifar100_wrn20", ""),
        ("image_folder", "data: {path: data}\n"),
    ],
)
def test_what_needs_no_hash_gets_none(root, recipe, more):
    put(root / "data" / "train" / "a.jpg")
    put(root / "data" / "cifar-10-batches-py" / "test_batch")
    node = stage(root, recipe, more)
    assert "listing" not in node.arguments
    assert ("data" in dvc_yaml.dependencies(node)) == (recipe == "image_folder")


def test_a_data_set_that_does_not_say_what_it_reads_is_watched_whole(root, monkeypatch):
    monkeypatch.setattr(raw_data, "_reads", lambda _: None)
    put(root / "mine" / "x" / "1")
    assert raw_data.listing("mine", "mine") == raw_data.fingerprint("mine")
    assert raw_data.listing("mine", None) is None


@pytest.mark.parametrize(
    ("line", "reads"),
    [('READS = ("a",)', ("a",)), ('READS: tuple[str, ...] = ("a",)', ("a",)), ("READS: str", None)],
)
def test_what_a_data_set_reads_may_have_a_type(tmp_path, line, reads):
    put(tmp_path / "mine.py", line)
    assert raw_data._reads(str(tmp_path / "mine.py")) == reads


def test_every_data_set_but_two_says_what_it_reads():
    silent = {name for name in registry.names("data") if raw_data._reads(name) is None}
    assert silent == {"digits", "image_folder"}, "the one has no files, and DVC hashes the other's"


def test_image_files_of_an_official_corrupted_set_are_watched(root):
    put(root / "set" / "fog" / "1" / "n01" / "a.JPEG")
    put(root / "set" / "blur" / "1" / "n01" / "a.JPEG")
    more = "evaluate: {corruptions_path: set}\n"
    before = stage(root, "digits", more, "corruptions")
    assert before.script == "list_corruptions"
    assert dvc_yaml.command(stage(root, "digits", more, "corruptions")) == dvc_yaml.command(before)
    put(root / "set" / "fog" / "1" / "n01" / "b.JPEG")
    after = stage(root, "digits", more, "corruptions")
    assert before.arguments["listing"] != after.arguments["listing"]


def test_a_queued_experiment_sees_the_projects_files(root, monkeypatch, tmp_path_factory):
    put(root / "set" / "a" / "1", "one")
    here = raw_data.fingerprint("set")
    monkeypatch.setattr(raw_data, "ROOT", tmp_path_factory.mktemp("experiment"))
    assert raw_data.fingerprint("set") is None
    monkeypatch.setenv("DVC_ROOT", str(root))
    assert raw_data.fingerprint("set") == here


@pytest.fixture
def reads(root, monkeypatch) -> Callable[[], int]:
    """Return a function that counts the folders that were read since it was called last."""
    calls: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: calls.append(path) or scandir(path))

    def count() -> int:
        number = len([call for call in calls if Path(call).is_relative_to(root)])
        calls.clear()
        return number

    return count


def test_of_a_large_set_only_folders_that_changed_are_read_again(root, monkeypatch, reads):
    monkeypatch.setattr(raw_data, "SMALL", 3)
    for folder in "abc":
        put(root / "set" / folder / "1", folder)
        put(root / "set" / folder / "2", folder)
    first = raw_data.fingerprint("set")
    assert reads() == 4
    assert raw_data.fingerprint("set") == first
    assert reads() == 4, "what changed just now may change again within the same tick"
    old = time.time() - 60
    for folder in ("set/a", "set/b", "set/c", "set"):
        os.utime(root / folder, (old, old))
    raw_data.fingerprint("set")
    reads()
    assert raw_data.fingerprint("set") == first
    assert reads() == 0
    put(root / "set" / "b" / "3", "more")
    second = raw_data.fingerprint("set")
    assert reads() == 1
    monkeypatch.setattr(raw_data, "_remembered", lambda _: {})
    assert raw_data.fingerprint("set") == second != first


def test_a_plan_reads_a_set_once_however_many_stages_ask_for_it(root, reads):
    put(root / "data" / "celeba" / "a" / "1", "one")
    put(root / "set" / "fog" / "1" / "n01" / "a.JPEG")
    reads()
    stage(root, "celeba_resnet18", "evaluate: {corruptions_path: set, corruptions: all}\n")
    assert reads() == len(["celeba", "a", "set", "fog", "1", "n01"])


def test_a_small_set_is_always_read(root, reads):
    put(root / "set" / "a" / "1", "one")
    old = time.time() - 60
    os.utime(root / "set" / "a", (old, old))
    first = raw_data.fingerprint("set")
    (root / "set" / "a" / "1").write_text("longer")
    assert raw_data.fingerprint("set") != first, "rewriting a file moves no folder's time"
    assert reads() == 4


def test_links_that_lead_back_end(root):
    put(root / "set" / "a" / "1", "one")
    (root / "set" / "a" / "back").symlink_to(root / "set")
    (root / "set" / "gone").symlink_to(root / "nowhere")
    assert raw_data.fingerprint("set") == raw_data.fingerprint("set")
    os.mkfifo(root / "set" / "pipe")
    assert raw_data.fingerprint("set") is not None
