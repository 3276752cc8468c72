"""The stages' command lines: what goes wrong is one sentence, exit status 2, and nothing lost."""

from pathlib import Path

import pytest

from pipeline.stagekit.cli import atomic_folder
from tests.command_line import Done, process, stage

TRAINING = ["--epochs", "1", "--batch-size", "512", "--weight-decay", "0", "--seed", "0"]


def refused(run: Done, *words: str) -> bool:
    """Say whether ``run`` ended as it should for a user's mistake, with all ``words``."""
    lines = run.stderr.strip().splitlines()
    sentence = lines[-1] if lines else ""
    return run.returncode == 2 and len(lines) == 1 and all(word in sentence for word in words)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stages") / "data"
    assert stage("prepare", "--name", "digits", "--out", folder).returncode == 0
    return folder


def pretrain(data: Path, out: Path, rate: float) -> Done:
    flags = ["--network", "resnet8", "--schedule", "constant", "--learning-rate", rate]
    return stage("pretrain", "--data", data, *flags, *TRAINING, "--out", out)


def test_a_diverged_training_names_the_rate_and_leaves_the_old_result(data, tmp_path):
    out = tmp_path / "dense"
    assert pretrain(data, out, 0.01).returncode == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert refused(pretrain(data, out, 1e30), "training diverged", "1e+30", "learning rate")
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["dense"], "nothing half-written stays"

    model = out / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-100])
    flags = ["--phase", 1, "--sparsity", 0.5, "--criterion", "magnitude", "--allocation", "global"]
    run = stage("prune", "--parent", out, *flags, "--out", tmp_path / "pruned")
    assert refused(run, "model.safetensors", "truncated", "dvc repro")


def test_data_of_another_task_is_refused(tmp_path):
    run = process("prepare", "--name", "digits", "--task", "segmentation", "--out", tmp_path / "x")
    assert run.returncode != 0
    assert "the recipe says task: segmentation: write task: classification in it" in run.stderr
    assert not (tmp_path / "x").exists()


def test_missing_images_are_asked_for(tmp_path):
    run = process("prepare", "--name", "image_folder", "--root", tmp_path / "x", "--out", tmp_path)
    assert refused(run, str(tmp_path / "x"))


def test_a_missing_artifact_says_how_to_make_it(data, tmp_path):
    run = stage("evaluate", "--data", data, "--model", tmp_path / "none", "--out", tmp_path / "out")
    assert refused(run, "model.safetensors", "is missing", "dvc repro")


def test_training_that_prunes_refuses_what_it_cannot_do(data, tmp_path):
    own = ["--network", "resnet8", "--schedule", "linear", "--learning-rate", 0.1, *TRAINING]
    flags = ["--data", data, *own, "--out", tmp_path / "out"]
    part = stage("sparsify", "--method", "gmp", "--from-epoch", 1, *flags)
    assert refused(part, "--from-epoch 1 --to-epoch 1 is no part of 1 epochs")
    steps = stage("sparsify", "--method", "dpf", "--pruning-steps", 1, *flags)
    assert refused(steps, "sparsify.pruning_steps is 1", "the 1 epochs", "train longer")
    assert refused(
        stage("sparsify", "--method", "imp", *flags), "'imp'", "use one of acdc, dnw, dpf"
    )
    assert not list(tmp_path.iterdir())


class Killed(BaseException):
    """A signal that ends the process."""


@pytest.mark.parametrize(("renames", "place"), [(0, "out"), (1, ".out.old")])
def test_a_kill_while_a_folder_is_replaced_leaves_the_old_one_whole(
    tmp_path, monkeypatch, renames, place
):
    left, rename = iter(range(renames)), Path.rename

    def killed(path, target):
        if next(left, None) is None:
            raise Killed
        return rename(path, target)

    out = tmp_path / "out"
    _replace(out, "old")
    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(Killed):
        _replace(out, "new")
    assert (tmp_path / place / "value").read_text() == "old"
    monkeypatch.setattr(Path, "rename", rename)
    _replace(out, "newer")
    assert (out / "value").read_text() == "newer"
    assert list(tmp_path.iterdir()) == [out]


def test_the_folder_that_a_link_names_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk/out")
    for text in ("old", "new"):
        _replace(tmp_path / "out", text)
        assert (tmp_path / "disk" / "out" / "value").read_text() == text
    assert (tmp_path / "out").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["out"]


def _replace(out: Path, text: str) -> None:
    with atomic_folder(out) as folder:
        (folder / "value").write_text(text)
