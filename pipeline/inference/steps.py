"""Steps of the C program for each kind of operation."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pipeline.inference.geometry import Reading, reading, tiles
from pipeline.inference.layout import LINE, Layout
from pipeline.inference.library import Step
from pipeline.inference.operations import Operation
from pipeline.inference.rows import dense_rows, sparse_rows, tuning

if TYPE_CHECKING:
    from pipeline.inference.plan import Plan

CONV, DENSE, AFFINE, POOL, GATHER, LOAD, STORE = range(7)
INFINITY = float("inf")
NONE = -1  # no residual


def conv(plan: "Plan", operation: Operation) -> Iterator[Step]:
    """Yield the steps of a convolution: phases, if needed, and the kernel."""
    from pipeline.inference.plan import kernel_of  # noqa: PLC0415

    name, target = operation.inputs[0], plan.layout(operation.output)
    source, kernel = plan.layout(name), kernel_of(operation)
    read = reading(kernel, source, target)
    place, scratch = plan.places[name], 0
    if read.gathered:
        phases = kernel.phases()
        scratch = len(phases) * read.phase_plane * source.channels
        place = plan.memory.take(scratch)
        yield _gather(plan, name, read, kernel.padding, kernel.stride, place, phases)
    yield _kernel(plan, operation, read, place)
    if scratch:
        plan.memory.release(scratch, place)


def _kernel(plan: "Plan", operation: Operation, read: Reading, place: int) -> Step:
    target, weight = plan.layout(operation.output), operation.arrays["weight"]
    dense, groups = operation.settings.get("dense", False), operation.settings["groups"]
    tuned = tuning(weight, read, target.width, plan.vector, dense)
    chunk = tuned.channels if groups == 1 else weight.shape[1] * groups
    if dense:
        entries, rows, chunks = dense_rows(weight, read, chunk)
    else:
        entries, rows, chunks = sparse_rows(weight, groups, read, chunk)
    tile, mask = tiles(read, target, plan.vector, tuned.most)
    source = plan.layout(operation.inputs[0])
    full = plan.block == LINE and not read.flat and target.height > 1
    return Step(
        **{"channels": source.channels, "in_plane": read.plane},
        **{"ahead": kernel_rows(operation) * source.pitch * plan.block if full else 0},
        **{"kind": DENSE if dense else CONV, "stride": read.step, "tiles": len(tile)},
        **{"out_channels": len(weight), "chunks": chunks, "block": plan.block},
        **{"source": place, "target": plan.places[operation.output]},
        **{"residual": _residual(plan, operation), "out_plane": target.plane},
        **{"entries": plan.address(entries), "rows": plan.address(rows)},
        **{"tile": plan.address(tile), "mask": None if mask is None else plan.address(mask)},
        **{"shift": plan.address(operation.arrays["bias"])},
        **_bounds(operation),
    )


def kernel_rows(operation: Operation) -> int:
    return operation.arrays["weight"].shape[2]


def _gather(
    plan: "Plan", name: str, read: Reading, padding: tuple[int, int], stride: tuple[int, int],
    place: int, phases: list[tuple[int, int]],
) -> Step:  # fmt: skip
    source = plan.layout(name)
    shifted = [[y - padding[0], x - padding[1]] for y, x in phases]
    window = np.array([source.height, source.width, *np.ravel(shifted)], np.int32)
    return Step(
        **{"kind": GATHER, "channels": source.channels, "out_channels": len(phases)},
        **{"stride": stride[1], "stride_y": stride[0], "block": plan.block},
        **{"height": read.phase_rows, "out_pitch": read.phase_pitch, "in_pitch": source.pitch},
        **{"source": plan.places[name] + source.at(0, 0), "target": place},
        **{"in_plane": source.plane, "out_plane": read.phase_plane},
        **{"window": plan.address(window), "residual": NONE},
    )


def affine(plan: "Plan", operation: Operation) -> Iterator[Step]:
    """Yield the step of scale, shift, residual and bounds."""
    step = _copy(plan, operation.inputs[0], operation.output, 0)
    step.residual = _residual(plan, operation)
    if step.residual != NONE:
        step.residual += plan.layout(operation.output).at(0, 0)
    for name, array in operation.arrays.items():
        setattr(step, name, plan.address(array))
    for end, bound in _bounds(operation).items():
        setattr(step, end, bound)
    yield step


def concat(plan: "Plan", operation: Operation) -> Iterator[Step]:
    """Yield the steps that copy each input to its channels."""
    channel = 0
    for name in operation.inputs:
        yield _copy(plan, name, operation.output, channel)
        channel += plan.layout(name).channels


def _copy(plan: "Plan", name: str, output: str, channel: int) -> Step:
    source, target = plan.layout(name), plan.layout(output)
    return Step(
        **{"kind": AFFINE, "channels": source.channels, "block": plan.block},
        **{"height": source.height, "width": source.width},
        **_places(plan, name, source, output, target),
        **{"residual": NONE, "low": -INFINITY, "high": INFINITY},
    ) if channel == 0 else _shifted(plan, name, output, channel)


def _shifted(plan: "Plan", name: str, output: str, channel: int) -> Step:
    step = _copy(plan, name, output, 0)
    step.target += channel * plan.layout(output).plane
    return step


def pool(plan: "Plan", operation: Operation) -> Iterator[Step]:
    """Yield the step of a pooling."""
    name, output = operation.inputs[0], operation.output
    source, target = plan.layout(name), plan.layout(output)
    window = np.concatenate(operation.settings["windows"]).astype(np.int32)
    weights = operation.arrays.get("weights")
    yield Step(
        **{"kind": POOL, "channels": source.channels, "block": plan.block},
        **{"height": target.height, "width": target.width, "maximum": weights is None},
        **_places(plan, name, source, output, target),
        **{"window": plan.address(window), "residual": NONE},
        **{"weights": None if weights is None else plan.address(weights)},
    )


def convert(plan: "Plan", name: str, kind: int) -> Step:
    """Return the step that copies the value ``name`` from a tensor, or to one."""
    layout = plan.layout(name)
    place = plan.places[name] + layout.at(0, 0)
    return Step(
        **{"kind": kind, "channels": layout.channels, "block": plan.block, "io": plan.slot()},
        **{"height": layout.height, "width": layout.width, "residual": NONE},
        **{"in_pitch": layout.pitch, "out_pitch": layout.pitch, "source": place, "target": place},
        **{"in_plane": layout.plane, "out_plane": layout.plane},
    )


def _places(
    plan: "Plan", name: str, source: Layout, output: str, target: Layout
) -> dict[str, int]:
    return {
        "source": plan.places[name] + source.at(0, 0),
        "target": plan.places[output] + target.at(0, 0),
        **{"in_pitch": source.pitch, "out_pitch": target.pitch},
        **{"in_plane": source.plane, "out_plane": target.plane},
    }


def _residual(plan: "Plan", operation: Operation) -> int:
    return plan.places[operation.inputs[1]] if len(operation.inputs) > 1 else NONE


def _bounds(operation: Operation) -> dict[str, float]:
    low, high = operation.settings["low"], operation.settings["high"]
    return {"low": -INFINITY if low is None else low, "high": INFINITY if high is None else high}


assert LINE == 16  # noqa: S101 - BLOCK of sparse_conv.c
