"""Linear and convolutional layers, whose gradients follow from their inputs and the slopes of their outputs.

A weight may be treated so only if the loss meets it nowhere but in calls of layers. `layers_of` proves this
from autograd's graph of the loss: decoders tied to the encoder, penalties on weights and whatever else takes
a weight out of its layer add an edge to the graph, and such a weight is differentiated as it is.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Call:
    """The arguments of a linear or a convolutional layer."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: int | Sequence[int] = 1
    padding: int | Sequence[int] | str = 0
    dilation: int | Sequence[int] = 1
    groups: int = 1

    @property
    def factors(self) -> bool:
        """Each row of the output is the weight times a row of the input, or times a patch of it."""
        if self.weight.dim() == 2:
            return True
        return self.input.dim() == 4 and self.groups == 1 and not isinstance(self.padding, str)


@dataclass(frozen=True)
class Layer:
    """A weight and a bias that the loss meets in these calls only, each with the shape of its output."""

    weight: str
    bias: str | None
    shape: torch.Size
    calls: list[tuple[Call, torch.Size]]

    @property
    def positions(self) -> int:
        """Rows that one example passes through the layer, all calls together."""
        return sum(output.numel() for _, output in self.calls) // self.shape[0]

    @property
    def sizes(self) -> tuple[int, int]:
        """Length of a row of the output, and of a row of the input with a one for the bias."""
        return self.shape[0], self.shape[1:].numel() + (self.bias is not None)

    @property
    def kept_as_outer_products(self) -> bool:
        """The inner product of two gradients is cheaper from the rows than from the gradients."""
        return self.positions**2 * sum(self.sizes) <= self.sizes[0] * self.sizes[1]

    def input_rows(self, inputs: list[Tensor]) -> Tensor:
        """Inputs of the calls, each `(n, …)`, as rows `(n, positions, in)`."""
        rows = []
        for (call, _), values in zip(self.calls, inputs, strict=True):
            if len(self.shape) == 4:
                patches = F.unfold(values.flatten(0, 1), self.shape[2:], call.dilation, call.padding, call.stride)
                values = patches.transpose(1, 2)
            rows.append(values.reshape(len(inputs[0]), -1, self.shape[1:].numel()))
        joined = torch.cat(rows, 1)
        return joined if self.bias is None else F.pad(joined, (0, 1), value=1.0)

    def slope_rows(self, slopes: list[Tensor]) -> Tensor:
        """Slopes in the calls' outputs, each `(R, …)`, as rows `(R, positions, out)`."""
        if len(self.shape) == 4:
            slopes = [slope.movedim(2, -1) for slope in slopes]
        return torch.cat([slope.reshape(len(slope), -1, self.shape[0]) for slope in slopes], 1)


class Watch(TorchFunctionMode):
    """Sees the calls of layers within its context, and adds a tap to the output of each that has one."""

    functions = (F.linear, F.conv2d)

    def __init__(self, names: Mapping[int, str], taps: Mapping[str, list[Tensor]]):
        super().__init__()
        self.names, self.taps = names, taps
        self.calls: dict[str, list[Call]] = {}
        self.shapes: dict[str, list[torch.Size]] = {}
        self.nodes: dict[str, list] = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        # What a loss computes under no_grad, such as a contrastive loss's negatives, is a constant to it.
        if function not in self.functions or not torch.is_grad_enabled():
            return output
        call = Call(*args, **(kwargs or {}))
        name = self.names.get(id(call.weight))
        if name is None:
            return output
        self.calls.setdefault(name, []).append(call)
        self.shapes.setdefault(name, []).append(output.shape)
        self.nodes.setdefault(name, []).append(output.grad_fn)
        return output + self.taps[name][len(self.calls[name]) - 1] if self.taps else output


def edges(root, stop: Sequence = ()) -> Counter:
    """Edges into every node of autograd's graph behind the node `root`, without what lies behind `stop`."""
    count, todo = Counter([root]), [root]
    while todo:
        for node, _ in todo.pop().next_functions:
            if node is not None:
                count[node] += 1
                if count[node] == 1 and node not in stop:
                    todo.append(node)
    return count


def leaves(nodes: Counter) -> dict[int, int]:
    """Edges into each leaf of a graph, by the leaf's identity."""
    return {id(node.variable): count for node, count in nodes.items() if hasattr(node, "variable")}


def layers_of(nodes: Counter, parameters: Mapping[str, Tensor], watch: Watch) -> list[Layer]:
    """The layers whose weight the loss meets nowhere else.

    Args:
        nodes: `edges` of the loss, evaluated for one example within `watch`.
        parameters: leaves of that graph by name.
        watch: what it saw.
    """
    into, names = leaves(nodes), {id(tensor): name for name, tensor in parameters.items()}
    found = []
    for name, calls in watch.calls.items():
        weight, biases = parameters[name], {id(call.bias) for call in calls}
        met = all(node in nodes for node in watch.nodes[name]) and into.get(id(weight)) == len(calls)
        if not met or len(biases) > 1 or not all(call.factors for call in calls):
            continue
        bias = names.get(biases.pop())
        if bias is not None and into.get(id(parameters[bias])) != len(calls):
            bias = None
        found.append(Layer(name, bias, weight.shape, list(zip(calls, watch.shapes[name], strict=True))))
    return found
