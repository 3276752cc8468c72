"""Readers of files: how to write small valid ones, which are damaged, and how they are read."""

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pipeline import inference
from pipeline.bundle import intake
from pipeline.channels import shrunk_checkpoint
from pipeline.channels.shrink import shrink
from pipeline.config import experiment
from pipeline.data import (
    base,
    build,
    camvid,
    celeba,
    cifar10,
    cifar100,
    cityscapes,
    image_folder,
    multi30k,
    wmt16,
)
from pipeline.errors import UserError
from pipeline.evaluate.corruptions.constants import NAMES_15, SEVERITIES
from pipeline.evaluate.corruptions.folder_set import FolderSet
from pipeline.evaluate.corruptions.manifest import list_files
from pipeline.evaluate.corruptions.open_set import open_set
from pipeline.evaluate.corruptions.write_npy_set import save_set
from pipeline.evaluate.partial_results import PartialResults
from pipeline.inference.compiled import DIGEST, FORMAT
from pipeline.models._weights import load_weights
from pipeline.models.build import build as build_network
from pipeline.report import fingerprint
from pipeline.run import provenance, ray_files
from pipeline.stagekit.model_folder import network
from pipeline.storage import checkpoint
from pipeline.storage.atomic_files import write_json
from pipeline.storage.tensors import read
from tests.fuzz.mutations import picture
from tests.fuzz.raw_data import (
    WNIDS,
    prepared,
    put,
    read_imagenet,
    write_camvid,
    write_celeba,
    write_cifar,
    write_cityscapes,
    write_imagenet,
    write_images,
    write_sentences,
    write_wmt16,
)

ROOT = Path(__file__).parents[2]


class Reader(NamedTuple):
    """A reader of files.

    Args:
        write: writes valid files to a folder.
        files: those that are damaged, as patterns.
        read: reads what the folder holds, as a stage does.
        ignores: whether it ignores damaged files, as caches are.
    """

    write: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path], object]
    ignores: bool = False


def write_prepared(folder: Path) -> None:
    write_imagenet(folder / "raw")
    base.save(build.prepare("fuzz", read_imagenet(folder / "raw", None), seed=0), folder / "packed")
    write_celeba(folder / "raw")
    base.save(build.prepare("fuzz", celeba.read(folder / "raw", 8), seed=0), folder / "pixels")
    shutil.rmtree(folder / "raw")


def read_prepared(folder: Path) -> None:
    for kind in ("packed", "pixels"):
        data = base.load(folder / kind)
        for split in (data.train, data.val, data.test):
            for images in split.images.split(4):
                images.float().mean()
            split.labels.long().bincount(minlength=len(data.classes))


def pruned_checkpoint() -> checkpoint.Checkpoint:
    torch.manual_seed(0)
    model = build_network("resnet8", 4)
    meta = {"network": "resnet8", "classes": 4, "channels": 3, "phase": 1, "sparsity": 0.9}
    dense = checkpoint.Checkpoint(model.state_dict(), {}, meta)
    masks = {n: torch.rand(p.shape) > 0.9 for n, p in model.named_parameters() if p.ndim > 1}
    state = {n: t * masks[n] if n in masks else t for n, t in dense.state.items()}
    return checkpoint.Checkpoint(state, masks, meta)


def write_checkpoint(folder: Path) -> None:
    checkpoint.save(folder / "model.safetensors", pruned_checkpoint())


def read_checkpoint(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole, lazy = checkpoint.load(path), checkpoint.open_checkpoint(path)
    for name in lazy.state:
        assert torch.equal(lazy.state[name], whole.state[name]) or lazy.state[name].isnan().any()
    for name in lazy.masks:
        lazy.masks[name].sum()
    network(whole)


def write_weights(folder: Path) -> None:
    state = build_network("resnet8", 4).state_dict()
    torch.save(state, folder / "w.pt")
    torch.save(state, folder / "w.pth", _use_new_zipfile_serialization=False)
    checkpoint.save_tensors(folder / "w.safetensors", state)


def read_weights(folder: Path) -> None:
    for suffix in (".pt", ".pth", ".safetensors"):
        load_weights(build_network("resnet8", 4), folder / f"w{suffix}")


def write_compiled(folder: Path) -> None:
    model = network(pruned_checkpoint()).eval()
    file = folder / "network.safetensors"
    inference.save(inference.compile(model, (3, 16, 16)), file)
    tensors, metadata = read(file)
    header = json.loads(metadata[FORMAT])
    del header[DIGEST]  # so that a mutated file reaches the checks behind it
    checkpoint.save_tensors(file, tensors, {FORMAT: json.dumps(header)})


def read_compiled(folder: Path) -> None:
    inference.load(folder / "network.safetensors")(torch.zeros(3, 3, 16, 16))


def write_small(folder: Path) -> None:
    model = build_network("resnet8", 4)
    inside = next(name for name, _ in model.named_modules() if name.endswith(".conv1"))
    kept = {inside: torch.arange(len(model.get_parameter(f"{inside}.weight"))) >= 5}
    meta = {"network": "resnet8", "classes": 4, "channels": 3}
    shrunk_checkpoint.save(folder / "small.safetensors", shrink(model, kept), kept, meta)


def read_small(folder: Path) -> None:
    shrunk_checkpoint.load(folder / "small.safetensors", build_network)


def digits() -> base.Dataset:
    images, labels = torch.zeros(4, 3, 5, 5, dtype=torch.uint8), torch.tensor([0, 1, 2, 0])
    split = base.Split(images, labels)
    return base.Dataset(split, split, split, WNIDS, torch.zeros(3), torch.ones(3), {})


def write_arrays(folder: Path) -> None:
    images = np.arange(4 * 75).astype(np.uint8).reshape(4, 5, 5, 3)
    save_set(folder, lambda *_: images, np.array([0, 1, 1, 0]), {"constants": "cifar"})


def read_corrupted(folder: Path) -> None:
    corrupted = open_set(folder, digits())
    for name in list(corrupted.names)[:3]:
        for severity in SEVERITIES:
            for images, labels in corrupted.batches(name, severity):
                assert len(images) == len(labels)


def write_folders(folder: Path) -> None:
    for name in NAMES_15:
        for severity in SEVERITIES:
            for wnid in WNIDS:
                put(folder / f"c/{name}/{severity}/{wnid}/a.JPEG", picture("JPEG"))
    write_json(folder / "meta.json", list_files(folder / "c", WNIDS))


def read_folders(folder: Path) -> None:
    listing = list_files(folder / "c", WNIDS)
    FolderSet(folder / "c", listing["cells"], WNIDS, 5)
    read_corrupted(folder)


def write_objects(folder: Path) -> None:
    put(folder / "in/a.txt", "a")
    put(folder / "object.tar", ray_files.pack(folder, ["in"]))


def read_objects(folder: Path) -> None:
    """Unpack an object of a Ray node, whose own errors are those of tarfile."""
    try:
        ray_files.unpack((folder / "object.tar").read_bytes(), folder / "unpacked")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(f"object.tar: {type(error).__name__}") from error
    finally:
        shutil.rmtree(folder / "unpacked", ignore_errors=True)


def write_returned(folder: Path) -> None:
    """Write the files that a bundle's run brings back."""
    facts = {"name": "a", "settings": ["m=3"], "commit": "b", "golden": "c", "card": "CPU",
             "torch": "2", "date": "2026-01-01", "cuda": "",
             "params": {"m": 3, "prune": {"criterion": "magnitude"}}}  # fmt: skip
    table = "method,phase,seed,sparsity,test_score,model\ndense,0,0,0.0,0.95,d\nimp,1,0,0.5,0.9,i\n"
    put(folder / "a/run.json", json.dumps(facts))
    put(folder / "a/reports/results.csv", table)
    network = folder / "a/artifacts/d/model.safetensors"
    network.parent.mkdir(parents=True)
    checkpoint.save_tensors(network, {"weight": torch.zeros(500)})
    (folder / "back").mkdir()
    for name, mode, members in (
        ("run-results.tar.gz", "w:gz", ("run.json", "reports/results.csv")),
        ("run-networks.tar.0", "w", ("artifacts/d/model.safetensors",)),
    ):
        with tarfile.open(folder / "back" / name, mode) as archive:
            for member in members:
                archive.add(folder / "a" / member, member)
    shutil.rmtree(folder / "a")
    put(folder / "back/run.jsonl", '{"measure": "peak", "tflops": 790.0}\n' * 2)


def read_returned(folder: Path) -> None:
    """Take in what a run brought back; a refused file must leave nothing."""
    os.environ["SMS_MLFLOW"] = "0"
    root, files = folder / "root", [folder / "back/run-results.tar.gz", folder / "back/run.jsonl"]
    try:
        for file, table in zip(files, (intake.RUNS, intake.MEASURES), strict=True):
            try:
                list(intake.take_in(root, [file]))
            except UserError:
                assert not (root / table).exists()
                raise
    finally:
        shutil.rmtree(root, ignore_errors=True)


def write_caches(folder: Path) -> None:
    cells = PartialResults(folder / "cells.json")
    cells.add(("fog", 1), 3, 4)
    record = {"s0-dense": {"output": "a.dir", "torch": "2", "device": "cpu", "threads": 1}}
    put(folder / provenance.FILE, json.dumps(record))
    put(folder / fingerprint.STORE, json.dumps({"report": "a", "files": "b"}))


def read_caches(folder: Path) -> None:
    cells = PartialResults(folder / "cells.json")
    if ("fog", 1) in cells:
        cells.accuracy(("fog", 1))
    provenance.provenance(folder)
    fingerprint.read(folder)


def write_settings(folder: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    put(folder / "params.yaml", text.replace("recipe: digits", f"recipe: {folder}/mine.yaml", 1))
    put(folder / "mine.yaml", (ROOT / "recipes/digits.yaml").read_text())


READERS = {
    "image folders": Reader(write_images, ("*/*/*",), prepared(image_folder.read, 9)),
    "groups.csv": Reader(write_images, ("groups.csv",), prepared(image_folder.read, 9)),
    "CamVid": Reader(write_camvid, ("camvid/*/*",), prepared(camvid.read)),
    "Cityscapes": Reader(write_cityscapes, ("cityscapes/*/*/*/*",), prepared(cityscapes.read, 9)),
    "Celeb-A, images": Reader(write_celeba, ("celeba/*/*",), prepared(celeba.read, 9)),
    "Celeb-A, lists": Reader(write_celeba, ("celeba/*.txt",), prepared(celeba.read, 9)),
    "ImageNet": Reader(
        write_imagenet, ("imagenet/*/*/*", "imagenet/*.txt"), prepared(read_imagenet)
    ),
    "CIFAR-10": Reader(write_cifar, ("cifar-10-batches-py/*",), prepared(cifar10.read)),
    "CIFAR-100": Reader(write_cifar, ("cifar-100-python/*",), prepared(cifar100.read)),
    "Multi30k": Reader(
        lambda f: write_sentences(f, "multi30k", tuple(multi30k.FILES.values())),
        ("multi30k/*",),
        prepared(multi30k.read),
    ),
    "WMT16": Reader(write_wmt16, ("wmt16/*",), prepared(wmt16.read)),
    "prepared data": Reader(write_prepared, ("*/*",), read_prepared),
    "checkpoints": Reader(write_checkpoint, ("model.safetensors",), read_checkpoint),
    "weights": Reader(write_weights, ("w.*",), read_weights),
    "compiled networks": Reader(write_compiled, ("network.safetensors",), read_compiled),
    "networks without filters": Reader(write_small, ("small.safetensors",), read_small),
    "CIFAR-C": Reader(write_arrays, ("*.npy", "meta.json"), read_corrupted),
    "ImageNet-C": Reader(write_folders, ("meta.json", "c/*_noise/*/*/*"), read_folders),
    "Ray objects": Reader(write_objects, ("object.tar",), read_objects),
    "results of a bundle": Reader(write_returned, ("back/*",), read_returned),
    "caches": Reader(
        write_caches, ("cells.json", "stages/*", str(fingerprint.STORE)), read_caches, ignores=True
    ),
    "settings": Reader(write_settings, ("*.yaml",), lambda f: experiment.load(f / "params.yaml")),
}
