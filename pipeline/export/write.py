"""Writes an export: a folder with a network in several formats, its settings and its card."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.channels.products import macs
from pipeline.data.base import Dataset
from pipeline.data.base import load as load_data
from pipeline.errors import UserError
from pipeline.evaluate.cost import cost
from pipeline.export.facts import Facts, read_facts
from pipeline.export.folder import CARD, check_replaceable, replacing, write_config
from pipeline.export.formats.base import Format, Source, load_format, source_of
from pipeline.export.measure import check_equal, latencies, score_on_test
from pipeline.export.metadata import write_card
from pipeline.export.selection import check_installed, select
from pipeline.process import cpu_name, threads
from pipeline.stagekit.model_folder import MODEL, network, read
from pipeline.storage.atomic_files import read_json
from pipeline.storage.checkpoint import Checkpoint

NEEDED = ("network", "classes", "channels", "sparsity")  # in the metadata of a checkpoint


@dataclass(frozen=True)
class Inputs:
    """The artifacts that an export is made from.

    Args:
        data: the prepared data.
        model: the model's folder.
        dense: the dense network's folder.
        metrics: folders of the stages that measure the model.
        dense_metrics: folders of the stages that measure the dense network.
    """

    data: Path
    model: Path
    dense: Path
    metrics: Sequence[Path] = ()
    dense_metrics: Sequence[Path] = ()


def export(
    inputs: Inputs,
    formats: Sequence[str],
    out: Path,
    seconds: float = 5.0,
    optional: Sequence[str] = (),
) -> list[str]:
    """Write the folder ``out``, whole or not at all; return the formats in it.

    Args:
        inputs: the artifacts.
        formats: files of pipeline/export/formats.
        out: the folder; the files of an earlier export there are replaced (`replacing`).
        seconds: of each measurement of latency.
        optional: those of ``formats`` that are left out if they cannot hold the network.

    Raises:
        UserError: a format does not exist, is not for this task, needs a package that is not
            installed or differs from PyTorch; the network cannot be exported; an artifact is
            missing; or ``out`` has other files.
    """
    check_replaceable(out)
    formats = select(formats, str(read_json(inputs.data / "meta.json")["task"]))
    check_installed(formats)
    data = load_data(inputs.data)
    source, dense = _sources(inputs, data)
    with replacing(out) as folder, tempfile.TemporaryDirectory() as other:
        folders = folder, Path(other)
        written = dict(_written(formats, optional, (source, dense), folders))
        members = list(written.values())
        write_config(folder, _config(source, data, list(written)))
        facts = replace(
            _facts(inputs, source, data),
            files=_sizes(folder),
            usage={member.LABEL: member.USAGE for member in members},
            scores=_scores(members, folder, data),
            latency=_latency(members, folders, source, seconds),
            machine=cpu_name(),
        )
        write_card(facts, folder / CARD)
    return list(written)


def _written(
    formats: Sequence[str],
    optional: Sequence[str],
    sources: tuple[Source, Source],
    folders: tuple[Path, Path],
) -> Iterator[tuple[str, Format]]:
    """Write the network and the dense one in each format; yield those that are written, by name."""
    (source, dense), (folder, other) = sources, folders
    for name in formats:
        member = load_format(name)
        try:
            member.write(source, folder)
        except UserError:
            if name not in optional:
                raise
            continue
        member.write(dense, other)
        if member.EXACT:
            check_equal(name, member.load(folder, threads()), source)
        yield name, member


def _sources(inputs: Inputs, data: Dataset) -> tuple[Source, Source]:
    """Return the network and the dense one, if both are for ``data``.

    Raises:
        UserError: they are not, or a checkpoint is not of a stage.
    """
    model, dense = _read(inputs.model), _read(inputs.dense)
    needs = {"classes": len(data.classes), "channels": data.train.images.shape[1]}
    needs["network"] = dense.meta["network"]
    for key, value in needs.items():
        if model.meta[key] != value:
            raise UserError(
                f"{inputs.model} has the {key} {model.meta[key]}, but the data and the dense "
                f"network have {value}: export it with the params.yaml that it was made with."
            )
    return source_of(model, data), source_of(dense, data)


def _read(folder: Path) -> Checkpoint:
    checkpoint = read(folder)
    missing = [key for key in NEEDED if key not in checkpoint.meta]
    if missing:
        raise UserError(
            f"{folder / MODEL} does not say its {' and '.join(missing)}, as the checkpoint of a "
            "stage does: name the folder of a stage's network."
        )
    return checkpoint


def _config(source: Source, data: Dataset, formats: list[str]) -> dict[str, Any]:
    """Return the settings with which the network is built and its inputs are made."""
    meta = source.checkpoint.meta
    return {
        "formats": formats,
        "task": data.task,
        "data": data.name,
        "network": meta["network"],
        "channels": meta["channels"],
        "classes": list(data.classes),
        "outputs": meta["classes"],
        "input_shape": list(source.examples.shape[1:]),
        "input_dtype": str(source.examples.dtype).removeprefix("torch."),
        "mean": data.mean.tolist(),
        "std": data.std.tolist(),
        "sparsity": meta["sparsity"],
        "structure": _structure(source),
        "kept_filters": {name: int(mask.sum()) for name, mask in source.kept.items()},
    }


def _facts(inputs: Inputs, source: Source, data: Dataset) -> Facts:
    """Return the facts in the artifacts, with the cost where no stage has measured it."""
    checkpoint, example = source.checkpoint, data.test.images[:1]
    facts = read_facts(
        inputs.model,
        inputs.data,
        checkpoint.meta["network"],
        inputs.metrics,
        [inputs.dense, *inputs.dense_metrics],
    )
    metrics = {"sparsity": checkpoint.meta["sparsity"], **facts.metrics}
    if "macs" not in metrics:
        metrics |= cost(network(checkpoint), checkpoint.masks, example)
    small = sum(macs(source.served.model, example).values()) if source.kept else None
    return replace(facts, metrics=metrics, small_macs=small, structure=_structure(source))


def _structure(source: Source) -> str:
    """Return weights, filters or N:M, as prune.structure."""
    structure: str = source.checkpoint.meta.get("structure", "weights")
    return "filters" if source.kept else structure


def _sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each file."""
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir())}


def _scores(members: Sequence[Format], folder: Path, data: Dataset) -> dict[str, float]:
    """Return the test scores of the formats that differ from PyTorch, by label."""
    inexact = [member for member in members if not member.EXACT]
    return {each.LABEL: score_on_test(each.load(folder, threads()), data) for each in inexact}


def _latency(
    members: Sequence[Format], folders: tuple[Path, Path], source: Source, seconds: float
) -> dict[int, dict[str, tuple[float, float]]]:
    """Return the milliseconds by batch size and label, of the model and the dense network.

    They are rounded to four digits, more than they are exact to.
    """
    runners = {
        (member.LABEL, number): member.load(folder, threads=1)
        for member in members
        for number, folder in enumerate(folders)
    }
    medians = latencies(runners, source.examples, seconds)
    labels = [member.LABEL for member in members]
    return {
        size: {label: (_rounded(times[label, 0]), _rounded(times[label, 1])) for label in labels}
        for size, times in medians.items()
    }


def _rounded(milliseconds: float) -> float:
    return float(f"{milliseconds:.4g}")
