"""Compiled network: runs a list of operations on batches of any size."""

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.inference import dense_path
from pipeline.inference.layout import LINE
from pipeline.inference.library import Library, library
from pipeline.inference.operations import Floats, Network
from pipeline.inference.plan import Part, Plan, pointer_array


class SparseNetwork(nn.Module):
    """Maps normalised images, float32 [B, C, H, W] on the CPU, to logits [B, K].

    Images are processed in blocks of up to 16; each thread computes whole blocks, so one image uses
    one thread. Gradients are not computed.

    Args:
        network: the operations.
        threads: that compute at once.

    Raises:
        UserError: ``threads`` is not a whole number of at least 1.
    """

    def __init__(self, network: Network, threads: int) -> None:
        super().__init__()
        if not isinstance(threads, int) or threads < 1:
            raise UserError(
                f"threads is {threads!r}, but must be a whole number >= 1: pass the number of "
                "blocks to compute at once."
            )
        self.network, self.threads = network, threads
        self.library: Library | None = library()
        self.plans: dict[int, Plan] = {}
        self.workspaces: dict[int, queue.SimpleQueue[Floats]] = {}
        self.pool = ThreadPoolExecutor(threads) if threads > 1 else None

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of ``images``.

        Raises:
            UserError: the images are not float32 [B, C, H, W] of the compiled size on the CPU, or
                a layer is too large for the kernels.
        """
        expected = self.network.shapes["input"][:3]
        fits = isinstance(images, Tensor) and images.shape[1:] == expected
        if not fits or (images.dtype, images.device.type) != (torch.float32, "cpu"):
            raise UserError(
                f"images are {_kind(images)} but must be float32 "
                f"[B, {', '.join(map(str, expected))}] on the CPU: convert them to such a tensor, "
                "and compile the network for their size."
            )
        if self.library is None or len(images) == 0:
            return dense_path.run(self.network, images)
        images = images.detach().contiguous()
        blocks = list(split(len(images), self.threads))
        for block in {block for _, _, block in blocks}:
            self.plan(block)
        parts = [images[start : start + count] for start, count, _ in blocks]
        sizes = [block for _, _, block in blocks]
        run = self.pool.map if self.pool and len(blocks) > 1 else map
        outputs = list(run(self.run_block, parts, sizes))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def plan(self, block: int) -> Plan:
        """Return the plan for blocks of ``block`` images."""
        if block not in self.plans:
            assert self.library is not None
            # Other threads may call this network too: the plan, which they look for, comes last.
            self.workspaces[block] = queue.SimpleQueue()
            self.plans[block] = Plan(self.network, block, self.library.vector)
        return self.plans[block]

    @torch.inference_mode()
    def run_block(self, images: Tensor, block: int) -> Tensor:
        """Return the logits of one block of at most ``block`` images."""
        plan, free = self.plans[block], self.workspaces[block]
        try:
            workspace = free.get_nowait()
        except queue.Empty:
            workspace = aligned(plan.floats)
        values: dict[str, Tensor] = {"input": images}
        for part in plan.parts:
            if part.operation is None:
                self.run_part(part, workspace, values, len(images))
            else:
                call, inputs = part.operation.call, part.operation.inputs
                assert call is not None
                values[part.operation.output] = call(*(values[name] for name in inputs))
        free.put(workspace)
        return values[self.network.output]

    def run_part(
        self, part: Part, workspace: Floats, values: dict[str, Tensor], images: int
    ) -> None:
        """Run steps of the C program; their outputs become ``values``."""
        assert self.library is not None
        for name in part.writes.values():
            shape = self.network.shapes[name]
            values[name] = torch.empty(images, *shape[: shape.rank - 1])
        tensors = {i: values[name] for i, name in (part.reads | part.writes).items()}
        tensors = {i: tensor.contiguous() for i, tensor in tensors.items()}
        pointers = pointer_array([tensors[i].data_ptr() for i in range(len(tensors))])
        self.library.run(part.program, len(part.program), workspace.ctypes.data, pointers, images)


def _kind(images: object) -> str:
    if not isinstance(images, Tensor):
        return f"of type {type(images).__name__}"
    return f"{images.dtype} {list(images.shape)} on {images.device}"


def aligned(floats: int) -> Floats:
    """Return ``floats`` zeros that start at a cache line."""
    memory = np.zeros(floats + LINE, np.float32)
    start = (-memory.ctypes.data // 4) % LINE
    return memory[start : start + floats]


def split(images: int, threads: int) -> Iterator[tuple[int, int, int]]:
    """Yield the blocks of a batch: first image, images, and size of the block.

    All threads get a block if there are enough images; a size is a power of 2 up to 16.
    """
    share = max(1, -(-images // threads))
    block = min(LINE, 1 << (share - 1).bit_length())
    for start in range(0, images, block):
        count = min(block, images - start)
        yield start, count, min(block, 1 << (count - 1).bit_length())
