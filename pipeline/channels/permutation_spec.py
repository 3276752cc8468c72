"""Permutation spec: the groups of channels whose permutation preserves a network's outputs.

The graph of the network (torch.fx) is traversed once from image to logits. The output channels of
every convolution and linear layer form a new group; normalisation and activations keep the group
of their input; an addition joins the groups of its terms, so that the residual stream of a stage
is one group. The channels of the image and of the logits keep their order.
"""

from dataclasses import dataclass, field

from torch import fx, nn

from pipeline.channels.operations import CONVOLUTIONS, Effect, effect, layer_of, mean_axes, trace
from pipeline.errors import UserError

STAYS = ""  # the group of channels that keep their order
REMEDY = "align another network, or leave imp_align out of methods"
KEEPING = (Effect.NORM, Effect.MEAN, Effect.FLATTENING, Effect.ZERO_TO_ZERO, Effect.CHANNELWISE)


@dataclass
class PermutationSpec:
    """The groups of channels that are permuted together.

    Attributes:
        sizes: the number of channels of each group, by the layer that forms it.
        axes: for every tensor of the state dict that has channels of a group, the group of each
            of its first axes; STAYS, and axes beyond these, keep their order.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def permutation_spec(model: nn.Module) -> PermutationSpec:
    """Return the permutation symmetry of ``model``.

    Raises:
        UserError: the network has an operation with an unknown effect on channels.

    Source: Ainsworth et al. 2023, Git Re-Basin, section 3 and appendix A.4 (residual networks).
    """
    tracer = _Tracer(trace(model, REMEDY))
    for node in tracer.network.graph.nodes:
        tracer.visit(node)
    axes = {name: tuple(map(tracer.root, groups)) for name, groups in tracer.spec.axes.items()}
    free = {group for groups in axes.values() for group in groups} - {STAYS}
    sizes = {group: size for group, size in tracer.spec.sizes.items() if group in free}
    return PermutationSpec(sizes, {name: groups for name, groups in axes.items() if any(groups)})


def _unknown(operation: str) -> UserError:
    return UserError(
        f"the network has {operation}, whose channels cannot be permuted here: {REMEDY}"
    )


class _Tracer:
    """One pass over the graph that assigns each value its group; joined groups are a union-find."""

    def __init__(self, network: fx.GraphModule) -> None:
        self.network, self.spec = network, PermutationSpec()
        self.parents = {STAYS: STAYS}
        self.groups: dict[fx.Node, str] = {}

    def root(self, group: str) -> str:
        """Return the joined group that contains ``group``."""
        while self.parents[group] != group:
            group = self.parents[group]
        return group

    def join(self, one: str, other: str) -> str:
        """Join two groups; a group joined with STAYS keeps its order."""
        first, second = sorted([self.root(one), self.root(other)])  # STAYS sorts first
        sizes = {self.spec.sizes[group] for group in (first, second) if group != STAYS}
        if len(sizes) > 1:
            raise _unknown("an addition of different numbers of channels")
        self.parents[second] = first
        return first

    def visit(self, node: fx.Node) -> None:
        """Record the group of the value of ``node``, and those of the axes of its tensors."""
        incoming = [self.groups[other] for other in node.all_input_nodes]
        kind, layer = effect(self.network, node), layer_of(self.network, node)
        over_channels = kind is Effect.MEAN and not {2, 3, -1, -2}.issuperset(mean_axes(node))
        if node.op == "placeholder":
            self.groups[node] = STAYS
        elif node.op == "output":
            self.join(STAYS, *incoming)
        elif kind in {Effect.CONVOLUTION, Effect.LINEAR}:
            self.groups[node] = self.layer(str(node.target), incoming[0])
        elif kind in KEEPING and len(incoming) == 1 and not over_channels:
            self.groups[node] = incoming[0]
            if kind is Effect.NORM:
                self.record(str(node.target), "running_mean running_var weight bias", incoming[0])
        elif kind in {Effect.ADDITION, Effect.PRODUCT} and incoming:
            self.groups[node] = self.join(incoming[0], incoming[-1])
        else:
            called = node.target if layer is None else type(layer)
            raise _unknown(getattr(called, "__name__", str(called)))

    def layer(self, name: str, incoming: str) -> str:
        """Record the groups of a convolution or linear layer; return that of its output."""
        layer = self.network.get_submodule(name)
        outputs, inputs = self.network.get_parameter(f"{name}.weight").shape[:2]
        if isinstance(layer, CONVOLUTIONS) and layer.groups > 1:
            if not layer.groups == layer.in_channels == outputs:
                raise _unknown("a grouped convolution")
            return self.record(name, "weight bias", incoming)  # depthwise
        if inputs != self.spec.sizes.get(self.root(incoming), inputs):
            raise _unknown("a linear layer on flattened maps")
        self.parents.setdefault(name, name)
        self.spec.sizes[name] = outputs
        self.record(name, "weight", name, incoming)
        return self.record(name, "bias", name)

    def record(self, layer: str, tensors: str, *groups: str) -> str:
        """Record the groups of the axes of a layer's tensors, joined where it is called twice."""
        for tensor in tensors.split():
            recorded = self.spec.axes.setdefault(f"{layer}.{tensor}", groups)
            for one, other in zip(recorded, groups, strict=True):
                self.join(one, other)
        return groups[0]
