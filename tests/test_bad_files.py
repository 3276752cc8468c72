"""Damaged and hostile files: each is refused in one sentence that names it."""

import io
import json
import os
import resource
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.channels import shrunk_checkpoint
from pipeline.config.yaml_file import MOST, read
from pipeline.data import base, build, celeba, imagenet, wmt16
from pipeline.data.formats import images, text
from pipeline.data.formats.cifar import unpickle
from pipeline.data.formats.label_maps import load_pairs
from pipeline.errors import LONGEST, UserError
from pipeline.evaluate.corruptions.open_set import open_set
from pipeline.evaluate.partial_results import PartialResults
from pipeline.models.build import build as build_network
from pipeline.plan.raw_data import _remembered
from pipeline.report import fingerprint
from pipeline.run import provenance
from pipeline.stagekit.model_folder import network
from pipeline.storage import checkpoint
from pipeline.storage.atomic_files import read_json
from pipeline.storage.tensors import read as read_tensors
from pipeline.storage.tensors import save_tensors
from pipeline.track.writer import _without_password
from tests.fuzz import readers
from tests.fuzz.mutations import picture

OUTSIDE = {"folder": "../x", "names": "", "bytes": 0}
BOMB = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} {{x: *{chr(97 + n)}, y: *{chr(97 + n)}}}\n" for n in range(23)
)


class TestSentence:
    def test_a_sentence_stays_one_line(self):
        name = "a\nb\x85c\u2028d\x1be\ud800"
        assert str(UserError(f"{name} is bad")) == r"a\nb\x85c\u2028d\x1be\ud800 is bad"
        assert str(UserError("café, 漢字")) == "café, 漢字"

    def test_a_long_sentence_keeps_its_ends(self):
        sentence = str(UserError("m is " + "x" * 10**6 + ", but must be 3"))
        assert len(sentence) <= LONGEST
        assert sentence.startswith("m is xx")
        assert sentence.endswith("xx, but must be 3")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 100_000, "more than 50 lists or groups in each other at line 1"),
        ("- " * 60 + "3", "more than 50 lists"),
        ("{a: " * 60, "more than 50 lists"),
        (BOMB, "more than 1000000 values, as its aliases"),
        ("m: &a [*a]", "more than 1000000 values"),
        ("m: &a {b: *a}", "more than 1000000 values"),
        ("x: y\n" * (MOST // 4), "bytes, but must have at most"),
        ("m: 2026-99-99", "a value that YAML cannot read (month must be in 1..12)"),
        ("m: " + "9" * 5000, "a value that YAML cannot read"),
        ("m: !!float abc", "a value that YAML cannot read"),
        ("m: !!int ''", "a value that YAML cannot read"),
        ("m: !!bool maybe", "a value that YAML cannot read"),
        ('"a\\"b": 1\n"a\\"b": 2', 'the key a"b stands twice (line 2)'),
    ],
)
def test_settings_that_no_yaml_parser_should_see_are_refused(tmp_path, content, words):
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as refusal:
        read(path, "params.yaml")
    assert str(refusal.value).startswith("params.yaml")
    assert words in str(refusal.value)


def test_a_folder_in_place_of_settings_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path, "params.yaml")


class TestImages:
    def test_a_picture_that_another_program_would_decode_is_not_decoded(
        self, tmp_path, monkeypatch
    ):
        """Pillow gives EPS to Ghostscript, whatever the file is called."""
        program, proof = tmp_path / "bin" / "gs", tmp_path / "proof"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\ntouch {proof}\nexit 1\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
        monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
        path = tmp_path / "cat.jpg"
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
        with pytest.raises(UserError, match=r"cat\.jpg cannot be read as an image"):
            images.decode(path, 8)
        assert not proof.exists()
        with path.open("rb") as file, suppress(Exception):
            Image.open(file).load()
        assert proof.exists(), "the attack is a real one"

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_an_image_of_too_many_pixels_is_not_decoded(self, tmp_path):
        content = bytearray(picture("PNG"))
        content = content[:16] + (9500).to_bytes(4) + (9500).to_bytes(4) + content[24:]
        import zlib

        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.png .*it has 9500x9500 pixels, and at most"):
            images.decode(tmp_path / "a.png", 8)

    def test_a_narrow_image_is_not_resized_to_gigabytes(self, tmp_path):
        Image.new("RGB", (60_000, 1)).save(tmp_path / "a.png")
        with pytest.raises(UserError, match=r"a\.png .*would be resized to 13440000x224 pixels"):
            images.decode(tmp_path / "a.png", 224)
        Image.new("L", (60_000, 1)).save(tmp_path / "map.png")
        with pytest.raises(UserError, match=r"a\.png would be resized to 15360000x256 pixels"):
            load_pairs([(tmp_path / "a.png", tmp_path / "map.png")], 256, {})


def damage(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize("number", [b"7", b"9" * 30, b"9" * 5000, b"0x1", b"\xff"])
def test_lists_of_celeba_have_small_numbers(tmp_path, number):
    readers.write_celeba(tmp_path)
    damage(tmp_path / "celeba/list_attr_celeba.txt", b" -1 ", b" " + number + b" ")
    with pytest.raises(
        UserError, match=r"list_attr_celeba\.txt(, line 3: .* is not| is not UTF-8)"
    ):
        celeba.read(tmp_path, 8)


def test_names_of_imagenets_classes_are_text(tmp_path):
    readers.write_imagenet(tmp_path)
    damage(tmp_path / "imagenet/LOC_synset_mapping.txt", b"tench", b"\xff")
    with pytest.raises(UserError, match=r"LOC_synset_mapping\.txt is not UTF-8 text"):
        imagenet.read(tmp_path, 16)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x0a\x03abc"])
def test_a_vocabulary_that_is_none_is_refused(tmp_path, content):
    pytest.importorskip("sentencepiece")
    readers.write_wmt16(tmp_path)
    (tmp_path / "wmt16/spiece.model").write_bytes(content)
    with pytest.raises(UserError, match=r"spiece\.model is not T5's vocabulary"):
        wmt16.read(tmp_path, 8)


def test_a_line_that_is_no_sentence_is_refused(tmp_path):
    (tmp_path / "a.en").write_text("x\n" + "y" * 100_001)
    (tmp_path / "a.de").write_text("x\ny")
    with pytest.raises(UserError, match=r"a\.en, line 2 has 100001 characters"):
        text.read_pairs(tmp_path / "a", ("en", "de"), "")


def rewritten(path: Path, key: str, change: object) -> None:
    """Write a safetensors file again with ``change``, a function, applied to its header."""
    tensors, metadata = read_tensors(path)
    header = json.loads(metadata[key])
    text = change(header)
    save_tensors(path, tensors, {key: text if isinstance(text, str) else json.dumps(header)})


class TestCheckpoints:
    @pytest.mark.parametrize(
        "change",
        [
            lambda _: "",
            lambda _: "[]",
            lambda _: "[" * 100_000,
            lambda h: h.pop("version") and None,
            lambda h: h.pop("meta") and None,
            lambda h: h.update(meta=3),
            lambda h: h.update(state=3),
            lambda h: h.update(state=["nothing"]),
            lambda h: h.update(masked=[3]),
            lambda h: h["masked"][0].__setitem__(1, "x"),
            lambda h: h["masked"][0].__setitem__(2, [2**40, 2**40]),
            lambda h: h["masked"][0].__setitem__(2, [-1]),
            lambda h: h["masked"][0].__setitem__(2, ["x"]),
        ],
    )
    def test_a_header_that_lies_is_refused(self, tmp_path, change):
        readers.write_checkpoint(tmp_path)
        path = tmp_path / "model.safetensors"
        rewritten(path, checkpoint.FORMAT, change)
        with pytest.raises(UserError, match=r"model\.safetensors is (truncated or not|damaged)"):
            checkpoint.load(path)
        with pytest.raises(UserError, match=r"model\.safetensors is (truncated or not|damaged)"):  # noqa: PT012
            lazy = checkpoint.open_checkpoint(path)
            _ = [lazy.state[name] for name in lazy.state], [lazy.masks[name] for name in lazy.masks]

    def test_a_tensor_too_large_for_memory_may_be_no_damage(self, tmp_path):
        path = tmp_path / "model.safetensors"
        header = {"version": 1, "meta": {}, "state": ["w"], "masked": [["w", "gaps", [2**50]]]}
        tensors = {"w:gaps": torch.ones(0, dtype=torch.uint8), "w:values": torch.ones(0)}
        save_tensors(path, tensors, {checkpoint.FORMAT: json.dumps(header)})
        with pytest.raises(UserError, match="is damaged or does not fit into memory"):
            checkpoint.load(path)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("network", "resnet20"),
            ("network", 3),
            ("classes", 5),
            ("classes", "x"),
            ("channels", -1),
        ],
    )
    def test_a_state_of_another_network_is_refused(self, tmp_path, key, value):
        readers.write_checkpoint(tmp_path)
        path = tmp_path / "model.safetensors"
        rewritten(path, checkpoint.FORMAT, lambda h: h["meta"].__setitem__(key, value))
        with pytest.raises(UserError, match=r"model\.safetensors does not fit the network"):
            network(checkpoint.load(path))

    @pytest.mark.parametrize(
        "change",
        [
            lambda _: "3",
            lambda h: h.update(network=3),
            lambda h: h.update(network="nothing"),
            lambda h: h.update(kept=3),
            lambda h: h.update(kept={"nothing": [0]}),
            lambda h: h.update(kept={"conv1": [9999]}),
            lambda h: h.update(classes=7),
        ],
    )
    def test_a_network_without_filters_that_lies_is_refused(self, tmp_path, change):
        readers.write_small(tmp_path)
        path = tmp_path / "small.safetensors"
        rewritten(path, shrunk_checkpoint.FORMAT, change)
        with pytest.raises(UserError, match=r"small\.safetensors( is truncated or not|: network)"):
            shrunk_checkpoint.load(path, build_network)


class TestPreparedData:
    @pytest.fixture
    def folder(self, tmp_path):
        readers.write_imagenet(tmp_path)
        base.save(build.prepare("x", imagenet.read(tmp_path, 16), seed=0), tmp_path / "data")
        return tmp_path / "data"

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("mean", {}),
            ("mean", ["x"]),
            ("groups", 3),
            ("groups", {"x": []}),
            ("shape", []),
            ("shape", 3),
            ("shape", [3, [16]]),
            ("classes", ["x"]),
        ],
    )
    def test_other_metadata_are_refused(self, folder, key, value):
        meta = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text(json.dumps(meta | {key: value}))
        with pytest.raises(UserError, match="data is not a data set"):
            base.load(folder)

    @pytest.mark.parametrize("place", ["offsets", "sizes", "bytes"])
    def test_packed_images_lie_in_their_file(self, folder, place):
        path = folder / "train-images.safetensors"
        tensors, _ = read_tensors(path)
        tensors[place] = {
            "offsets": tensors["offsets"] * 2,
            "sizes": -tensors["sizes"],
            "bytes": tensors["bytes"][:-9].clone(),
        }[place]
        save_tensors(path, tensors)
        with pytest.raises(UserError, match=r"train-images\.safetensors is truncated"):
            base.load(folder)

    def test_a_damaged_image_in_a_pack_is_named(self, folder):
        path = folder / "train-images.safetensors"
        tensors, _ = read_tensors(path)
        start = int(tensors["offsets"][2])
        tensors["bytes"][start : start + 20] = 0
        save_tensors(path, tensors)
        with pytest.raises(
            UserError, match=r"image 2 of .*train-images\.safetensors cannot be read"
        ):
            list(base.load(folder).train.images.split(4))


def test_a_cifar_file_cannot_ask_for_memory(tmp_path):
    """The number after LONG_BINPUT is the size of a table in C's unpickler: here 32 GB."""
    (tmp_path / "batch").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, before[1]))
    try:
        assert unpickle(tmp_path / "batch") == {}
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class TestCorruptedSets:
    @pytest.mark.parametrize(
        "meta",
        [
            [],
            3,
            {"layout": "folders"},
            {"layout": ["folders"]},
            {"layout": "x"},
            {"layout": "folders", "root": "c", "cells": {"fog": []}},
            {"layout": "folders", "root": "c", "cells": {"fog": [OUTSIDE] * 5}},
            {"layout": "streamed", "constants": [], "seed": 0, "images": 1},
            {"layout": "streamed", "constants": "cifar", "seed": "x", "images": 1},
        ],
    )  # fmt: skip
    def test_other_metadata_are_refused(self, tmp_path, meta):
        (tmp_path / "meta.json").write_text(json.dumps(meta))
        with pytest.raises(UserError, match=r"meta\.json is not that of a corrupted set"):
            open_set(tmp_path, readers.digits())

    def test_arrays_of_an_archive_or_of_lying_headers_are_refused(self, tmp_path):
        readers.write_arrays(tmp_path)
        archive = io.BytesIO()
        np.savez(archive, a=np.zeros(3))
        whole = (tmp_path / "fog.npy").read_bytes()
        for content in (
            archive.getvalue(),
            whole.replace(b"(20, 5, 5, 3)", b"(2**40,)     "),
            whole.replace(b"'|u1'", b"'|O' "),
            whole.replace(b"{'descr'", b"(((((((("),
        ):
            (tmp_path / "fog.npy").write_bytes(content)
            with pytest.raises(UserError, match=r"fog\.npy is"):
                open_set(tmp_path, readers.digits())


@pytest.mark.parametrize(
    "content", ["[]", "3", '{"a": 3}', '{"fog/1": [4, 3]}', "[" * 100_000, '{"fog/1": [1, 0]}']
)
def test_caches_with_other_content_are_ignored(tmp_path, content):  # fmt: skip
    path = tmp_path / "cells.json"
    path.write_text(content)
    assert PartialResults(path).counts == {}
    assert _remembered(path) == {}
    for file in (tmp_path / provenance.FILE, tmp_path / fingerprint.STORE):
        file.parent.mkdir(parents=True)
        file.write_text(content)
    assert provenance.provenance(tmp_path) == {}
    assert fingerprint.read(tmp_path) is None


@pytest.mark.parametrize("content", [b"\xff", b"[" * 100_000, None])
def test_json_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        read_json(path)


def test_weights_that_end_early_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02")
    from pipeline.models._weights import load_weights

    with pytest.raises(UserError, match=r"w\.pt, which is damaged"):
        load_weights(build_network("resnet8", 4), tmp_path / "w.pt")


def test_a_servers_password_is_not_printed():
    address = "https://user:s3cret@mlflow.example.org/x"
    assert _without_password(f"MLflow at {address} refuses") == (
        "MLflow at https://mlflow.example.org/x refuses"
    )
    assert _without_password("at http://u:p@ss@host/x of me@x") == "at http://host/x of me@x"
    assert _without_password("sqlite:////data/a@b/mlflow.db") == "sqlite:////data/a@b/mlflow.db"
