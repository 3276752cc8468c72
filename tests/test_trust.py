"""Files from outside execute nothing, stay where they should, and no secret is written."""

import io
import json
import os
import pickle
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.run import ray_files
from pipeline.stagekit.model_folder import network
from pipeline.storage import checkpoint
from tests.fuzz.readers import READERS, pruned_checkpoint
from tests.project import Project

SECRET = "hunter2-4711-correct-horse"


class Payload:
    """Loaded without limits, its pickle makes a folder."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


def payloads(proof: Path) -> dict[str, bytes]:
    """Return files that make the folder ``proof`` if they are unpickled, by kind."""
    attack = Payload(proof)
    saved, legacy, array = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"conv1.weight": attack}, saved)
    torch.save({"conv1.weight": attack}, legacy, _use_new_zipfile_serialization=False)
    np.save(array, np.array([attack], dtype=object), allow_pickle=True)
    return {
        "pickle": pickle.dumps({"data": attack, "labels": attack, "label_names": [attack]}),
        "torch": saved.getvalue(),
        "torch, old": legacy.getvalue(),
        "numpy": array.getvalue(),
    }


def test_the_payloads_are_real(tmp_path):
    for number, (kind, content) in enumerate(payloads(tmp_path / "proof").items()):
        proof = tmp_path / "proof"
        if kind == "numpy":
            np.load(io.BytesIO(content), allow_pickle=True)
        elif kind == "pickle":
            with suppress(FileExistsError):
                pickle.loads(content)
        else:
            torch.load(io.BytesIO(content), weights_only=False)
        assert proof.is_dir(), (number, kind)
        proof.rmdir()


@pytest.mark.parametrize("name", READERS)
def test_no_reader_executes_a_pickle(tmp_path, name):
    """Every file that a reader takes is replaced by every kind of pickle."""
    reader, proof = READERS[name], tmp_path / "proof"
    folder = tmp_path / "files"
    folder.mkdir()
    try:
        reader.write(folder)
    except UserError as error:  # an optional package
        pytest.skip(str(error))
    files = sorted(path for each in reader.files for path in folder.glob(each) if path.is_file())
    reader.read(folder)
    first = {path.suffix: path for path in reversed(files)}
    assert first
    for path in first.values():
        content = path.read_bytes()
        for kind, payload in payloads(proof).items():
            path.write_bytes(payload)
            if reader.ignores:
                reader.read(folder)
            else:
                with pytest.raises(UserError):
                    reader.read(folder)
            assert not proof.exists(), (path, kind)
        path.write_bytes(content)


@pytest.mark.filterwarnings("default")
def test_the_graph_in_a_registered_model_executes_nothing(tmp_path):
    """MLflow's file of a soup, each of its members replaced by a payload."""
    from pipeline.track.pyfunc_model import Soup

    def load(name: str) -> Soup:
        artifacts = {"soup": str(tmp_path / name)}
        soup = Soup()
        soup.load_context(SimpleNamespace(artifacts=artifacts, model_config=None))
        return soup

    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "whole.pt2")
    with zipfile.ZipFile(tmp_path / "whole.pt2") as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    assert load("whole.pt2").module(torch.ones(1, 2)).shape == (1, 2)
    attacks, environment = payloads(tmp_path / "proof"), dict(os.environ)
    for changed in members:
        for kind in ("pickle", "torch"):
            with zipfile.ZipFile(tmp_path / "bad.pt2", "w") as file:
                for name, content in members.items():
                    file.writestr(name, attacks[kind] if name == changed else content)
            with suppress(Exception):
                load("bad.pt2")
            assert not (tmp_path / "proof").exists(), (changed, kind)
    assert environment == os.environ
    (config,) = [name for name in members if name.endswith("model_constants_config.json")]
    opaque = {
        "path_name": "opaque_obj_0",
        "is_param": False,
        "use_pickle": True,
        "tensor_meta": None,
    }
    objects = {config: json.dumps({"config": {"x": opaque}}).encode(),
               f"{config.rpartition('/')[0]}/opaque_obj_0": attacks["pickle"]}  # fmt: skip
    with zipfile.ZipFile(tmp_path / "bad.pt2", "w") as file:
        for name, content in (members | objects).items():
            file.writestr(name, content)
    with pytest.raises(ValueError, match="has objects beside tensors"):
        load("bad.pt2")
    assert not (tmp_path / "proof").exists()
    with suppress(Exception):
        torch.export.load(tmp_path / "bad.pt2")
    assert (tmp_path / "proof").exists(), "the attack is a real one"


def test_code_that_a_checkpoint_names_is_not_executed(tmp_path):
    code, proof = tmp_path / "net.py", tmp_path / "proof"
    code.write_text(f"import os\nos.mkdir({str(proof)!r})\ndef build(classes, channels): ...\n")
    saved = pruned_checkpoint()
    foreign = checkpoint.Checkpoint(saved.state, saved.masks, saved.meta | {"network": str(code)})
    checkpoint.save(tmp_path / "model.safetensors", foreign)
    with pytest.raises(UserError, match="code that an artifact names"):
        network(checkpoint.load(tmp_path / "model.safetensors"))
    assert not proof.exists()


def archive(*members: tuple[str, str, bytes | str]) -> bytes:
    """Return a tar archive of members: name, type, and content or target of a link."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = getattr(tarfile, kind)
            if isinstance(content, str):
                info.linkname = content
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return file.getvalue()


@pytest.mark.parametrize(
    "members",
    [
        [("../out/escaped", "REGTYPE", b"x")],
        [("a/../../out/escaped", "REGTYPE", b"x")],
        [("link", "SYMTYPE", "../out"), ("link/escaped", "REGTYPE", b"x")],
        [("link", "SYMTYPE", "OUT"), ("link/escaped", "REGTYPE", b"x")],
        [("link", "LNKTYPE", "../out/secret")],
        [("device", "CHRTYPE", b"")],
    ],
)
def test_an_object_of_another_node_stays_in_its_folder(tmp_path, members):
    out = tmp_path / "out"
    out.mkdir()
    (out / "secret").write_text("x")
    absolute = [(n, k, str(out) if c == "OUT" else c) for n, k, c in members]
    with pytest.raises(tarfile.TarError):
        ray_files.unpack(archive(*absolute), tmp_path / "store" / "key")
    assert [path.name for path in out.iterdir()] == ["secret"]
    assert not list((tmp_path / "store").iterdir()), "no part of it is left"


def test_an_absolute_name_in_an_object_becomes_a_relative_one(tmp_path):
    ray_files.unpack(archive((f"{tmp_path}/escaped", "REGTYPE", b"x")), tmp_path / "store" / "key")
    assert not (tmp_path / "escaped").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_no_secret_of_the_environment_is_written(tmp_path):
    """A whole small graph with MLflow and a registered soup."""
    project = Project.create(tmp_path / "project")
    secrets = {
        "SECRET_TOKEN": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "MLFLOW_TRACKING_TOKEN": SECRET,
    }
    said = project.run("dvc", "repro", SMS_MLFLOW="1", **secrets)
    assert SECRET not in said
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.name == "mlflow.db" for path in written)
    assert any(path.name == "MLmodel" for path in written), "a soup is registered"
    leaks = [path for path in written if SECRET.encode() in path.read_bytes()]
    assert leaks == []
