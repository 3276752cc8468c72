"""Graph edits for values without their pruned channels."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from pipeline.channels.zero_channels import Channels


def scatter_channels(values: Tensor, index: Tensor, width: int) -> Tensor:
    """Return [B, width, ...] with ``values`` at the channels ``index`` and 0 elsewhere."""
    shape = values.shape  # torch.export takes len(values) for a constant
    empty = values.new_zeros(shape[0], width, *shape[2:])
    return empty.index_copy(1, index, values)


def add_channels(wide: Tensor, values: Tensor, index: Tensor) -> Tensor:
    """Return ``wide`` with ``values`` added at its channels ``index``."""
    return wide.index_add(1, index, values)


def add_by_index(small: fx.GraphModule, node: fx.Node, known: dict[fx.Node, Channels]) -> None:
    """Replace an addition of values with different channels by an indexed addition."""
    union = known[node].active
    wide, narrow = node.all_input_nodes[0], node.all_input_nodes[-1]  # the same node for x + x
    if not torch.equal(known[wide].active, union):
        wide, narrow = narrow, wide
    if torch.equal(known[narrow].active, union):
        return
    with small.graph.inserting_before(node):
        if not torch.equal(known[wide].active, union):
            index = _constant(small, _positions(known[wide].active, union))
            wide = _call(small, scatter_channels, wide, index, int(union.sum()))
        index = _constant(small, _positions(known[narrow].active, union))
        total = _call(small, add_channels, wide, narrow, index)
    node.replace_all_uses_with(total)
    small.graph.erase_node(node)
    known[total] = known.pop(node)


def restore_channels(
    small: fx.GraphModule, node: fx.Node, source: fx.Node, known: Mapping[fx.Node, Channels]
) -> None:
    """Give ``node`` all channels of ``source``, with zeros for the removed ones."""
    if source in known and not (active := known[source].active).all():
        with small.graph.inserting_before(node):
            index = _constant(small, active.nonzero().view(-1))
            whole = _call(small, scatter_channels, source, index, len(active))
        node.replace_input_with(source, whole)


def select_active(small: fx.GraphModule, node: fx.Node, known: dict[fx.Node, Channels]) -> None:
    """Select the active channels of the output of ``node``, which has all channels."""
    active = known[node].active
    if not active.all():
        with small.graph.inserting_after(node):
            index = _constant(small, active.nonzero().view(-1))
        with small.graph.inserting_after(index):
            selected = small.graph.call_function(torch.index_select, (node, 1, index))
        node.replace_all_uses_with(selected, delete_user_cb=lambda user: user is not selected)
        known[selected] = known.pop(node)


def _call(small: fx.GraphModule, function: Callable[..., Tensor], *args: Any) -> fx.Node:
    """Insert a call of ``function`` that stays one node where the network is traced again."""
    node = small.graph.call_function(function, args)
    node.meta["is_wrapped"] = True  # torch.fx's own mark, which the generated code keeps
    return node


def _constant(small: fx.GraphModule, index: Tensor) -> fx.Node:
    """Insert a node that returns ``index``, a buffer outside the state dict."""
    name = f"channels{sum(1 for _ in small.named_buffers(recurse=False))}"
    small.register_buffer(name, index, persistent=False)
    return small.graph.get_attr(name)


def _positions(part: Tensor, whole: Tensor) -> Tensor:
    """Return the positions of the channels of ``part`` among those of its superset ``whole``."""
    return part[whole].nonzero().view(-1)
