"""Which channels of a network may change places without a change of what it computes.

The graph of the network (torch.fx) is followed once from the image to the logits. Every
convolution and linear layer opens a group, its output channels; normalisation and activations
keep the group of their input; an addition makes the groups of its terms one, so that the whole
residual stream of a stage is one group. The channels of the image and the logits stay.
"""

from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.align.operations import JOINING, KEEPING, KEEPING_LAYERS, over_channels, unknown
from pipeline.align.permute import STAYS, Symmetry


def symmetry(model: nn.Module) -> Symmetry:
    """Return the permutation symmetry of ``model``.

    Raises:
        UserError: the network has an operation whose effect on channels is not known here.

    Source: Ainsworth et al. 2023, Git Re-Basin, section 3 and appendix A.4 (residual networks).
    """
    try:
        graph = fx.symbolic_trace(model).graph
    except (TypeError, ValueError, fx.proxy.TraceError) as error:
        raise unknown("control flow that depends on the images") from error
    walk = _Walk(model)
    for node in graph.nodes:
        walk.visit(node)
    own = walk.found.axes
    axes = {name: tuple(walk.root(group) for group in groups) for name, groups in own.items()}
    free = {group for groups in axes.values() for group in groups} - {STAYS}
    sizes = {group: size for group, size in walk.found.sizes.items() if group in free}
    return Symmetry(sizes, {name: groups for name, groups in axes.items() if any(groups)})


class _Walk:
    """One pass over the graph: the group of every value, with groups that become one."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.found = model, Symmetry()
        self.parents = {STAYS: STAYS}
        self.groups: dict[fx.Node, str] = {}

    def root(self, group: str) -> str:
        """Return the group that ``group`` has become part of."""
        while self.parents[group] != group:
            group = self.parents[group]
        return group

    def join(self, one: str, other: str) -> str:
        """Make two groups one; what stays makes the other stay."""
        first, second = sorted([self.root(one), self.root(other)])  # STAYS sorts first
        sizes = {self.found.sizes[group] for group in (first, second) if group != STAYS}
        if len(sizes) > 1:
            raise unknown("an addition of different numbers of channels")
        self.parents[second] = first
        return first

    def visit(self, node: fx.Node) -> None:
        """Note the group of the value of ``node``, and the axes of its tensors."""
        incoming = [self.groups[other] for other in node.all_input_nodes]
        if node.op == "placeholder":
            self.groups[node] = STAYS
        elif node.op == "output":
            self.join(STAYS, *incoming)
        elif node.op == "call_module":
            name = str(node.target)
            self.groups[node] = self.layer(name, self.model.get_submodule(name), incoming[0])
        elif node.target in KEEPING and len(incoming) == 1 and not over_channels(node):
            self.groups[node] = incoming[0]
        elif node.target in JOINING and incoming:
            self.groups[node] = self.join(incoming[0], incoming[-1])
        else:
            raise unknown(getattr(node.target, "__name__", str(node.target)))

    def layer(self, name: str, layer: Any, incoming: str) -> str:
        """Note the axes of the layer's tensors and return the group of its output."""
        if isinstance(layer, KEEPING_LAYERS):
            return incoming
        if isinstance(layer, _BatchNorm):
            for statistic in ("running_mean", "running_var"):
                self.note(f"{name}.{statistic}", incoming)
            return self.weights(name, incoming)
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            raise unknown(type(layer).__name__)
        inputs, outputs = layer.weight.shape[1], layer.weight.shape[0]
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            if not layer.groups == layer.in_channels == outputs:
                raise unknown("a grouped convolution")
            return self.weights(name, incoming)  # each channel by itself
        if inputs != self.found.sizes.get(self.root(incoming), inputs):
            raise unknown("a linear layer on flattened maps")
        self.parents.setdefault(name, name)
        self.found.sizes[name] = outputs
        return self.weights(name, name, incoming)

    def weights(self, name: str, outgoing: str, *incoming: str) -> str:
        """Note weight and bias of the layer ``name`` and return the group of its output."""
        self.note(f"{name}.weight", outgoing, *incoming)
        self.note(f"{name}.bias", outgoing)
        return outgoing

    def note(self, tensor: str, *groups: str) -> None:
        """Note the groups of a tensor's axes; a layer that is used twice has them once."""
        for one, other in zip(self.found.axes.setdefault(tensor, groups), groups, strict=True):
            self.join(one, other)
