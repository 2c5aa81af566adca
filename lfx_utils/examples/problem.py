"""A loss as a function of the encoder's parameters: set up for one example at a time, and cleaned up after."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from lfx_utils.examples.layers import Layer, Watch, edges, layers_of, leaves
from lfx_utils.examples.precision import at_least_single

Loss = Callable[[nn.Module, Tensor], Tensor]


class Problem:
    """A loss of one example as a function of the encoder's parameters; made by `problem`."""

    def __init__(self, model: nn.Module, loss: Loss, part: str, example: Tensor, factor: bool):
        self.model, self.call, self.part, self.example, self.factor = model, _Call(model, loss), part, example, factor
        inside = [
            (name, p)
            for name, p in model.named_parameters(remove_duplicate=False)
            if not part or name.startswith(part + ".")
        ]
        # What training held fixed carries no influence; an encoder that was frozen as a whole was so afterwards.
        inside = [(name, p) for name, p in inside if p.requires_grad] or inside
        # A weight that the encoder shares with another module counts once, under the encoder's name.
        names = {id(parameter): name for name, parameter in [*model.named_parameters(), *inside]}
        self.names = [names[i] for i in dict.fromkeys(id(parameter) for _, parameter in inside)]
        self.buffers = {name for name, _ in model.named_buffers()}
        names |= {id(buffer): name for name, buffer in model.named_buffers()}
        # Every place of the model that holds a tensor, once, and the tensor's name: torch's own way of tying
        # weights leaves a model changed in which a module stands at two places.
        self.places = {
            ".".join(filter(None, ("model", prefix, key))): names[id(tensor)]
            for prefix, module in model.named_modules()
            for key, tensor in [*module._parameters.items(), *module._buffers.items()]
            if tensor is not None
        }
        # torch has no batching rule for the fused recurrent kernels, and one example after the other is
        # faster with them than all at once without.
        self.recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
        # What the noise in the loss is drawn from, anew in every evaluation; None lets the generator run on.
        self.seed: int | None = None
        self.layers: list[Layer] = []
        self.watched: dict[int, str] = {}
        self.shifts: list[Tensor] = []
        self.latents: list[Tensor] = []
        self.nodes: list = []
        self.outside: list[str] = []
        self.shapes: list[torch.Size] = []

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take parameters and buffers from a state dict; the model itself keeps its own."""
        own = next(iter(self.model.parameters()), torch.zeros(()))
        self.state = {
            name: at_least_single(tensor.detach().to(own.device))
            for name, tensor in state.items()
            if name in self.places.values()
        }
        self._look()

    def _look(self) -> None:
        """Learn from the loss of one example which of the encoder's weights it meets where.

        Raises:
            ValueError: it depends on none of them.
        """
        self.layers, self.watched = [], {}
        parameters = {name: tensor.detach().requires_grad_() for name, tensor in self.parameters().items()}
        with torch.enable_grad(), torch.random.fork_rng():
            value, watch = self._evaluate(
                parameters, Watch({id(tensor): name for name, tensor in parameters.items()}, {}), [], self.example
            )
            nodes = edges(value.grad_fn) if value.requires_grad else Counter()
        self.shapes = [latent.shape for latent in self.latents]
        if not leaves(nodes):
            raise ValueError(
                f"loss(model, x) never calls the submodule {self.part!r} with gradients, so it does not depend on "
                "its parameters."
            )
        own = {id(tensor): name for name, tensor in parameters.items()}
        self.outside = [own[leaf] for leaf in leaves(edges(value.grad_fn, stop=self.nodes)) if leaf in own]
        # Examples that are differentiated one by one may each meet the weights elsewhere.
        if self.factor and not self.recurrent:
            self.layers = layers_of(nodes, parameters, watch)
            self.watched = {id(self.state[layer.weight]): layer.weight for layer in self.layers}
        self.latents, self.nodes = [], []

    def parameters(self) -> dict[str, Tensor]:
        """The encoder's parameters that carry influence."""
        return {name: self.state[name] for name in self.names}

    def weights(self) -> dict[str, Tensor]:
        """The parameters that are differentiated as they are; those of `layers` go through their taps."""
        factored = {name for layer in self.layers for name in (layer.weight, layer.bias)}
        return {name: tensor for name, tensor in self.parameters().items() if name not in factored}

    def __call__(
        self, weights: Mapping[str, Tensor], taps: Mapping[str, list[Tensor]], shifts: list[Tensor], example: Tensor
    ):
        """Loss of one example `(…)`, with `taps` added to the layers' outputs and `shifts` to the encoder's.

        Returns:
            The scalar loss, the layers' inputs by the name of the weight, one for each call, and the encoder's
            outputs, one for each call.
        """
        value, watch = self._evaluate(weights, Watch(self.watched, taps), shifts, example)
        inputs = {name: [call.input for call in calls] for name, calls in watch.calls.items()}
        return value, inputs, self.latents

    def _evaluate(self, weights: Mapping[str, Tensor], watch: Watch, shifts: list[Tensor], example: Tensor):
        self.shifts, self.latents, self.nodes = shifts, [], []
        if self.seed is not None:
            # torch.manual_seed notes where it was called for every kind of device that is not in use, which takes a
            # thousand times as long.
            cpu = self.example.device.type == "cpu"
            (torch.default_generator.manual_seed if cpu else torch.manual_seed)(self.seed)
        # Copies, since an encoder may work in place, on its input or on its buffers.
        buffers = {name: self.state[name].clone() for name in self.buffers & self.state.keys()}
        tensors = {**self.state, **buffers, **weights}
        state = {place: tensors[name] for place, name in self.places.items() if name in tensors}
        with watch:
            value = functional_call(self.call, state, (example.unsqueeze(0).clone(),), tie_weights=False)
        if not isinstance(value, Tensor) or value.dim() != 0:
            came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"loss(model, x) must return a scalar tensor, got {came}.")
        return value, watch

    def zero_taps(self) -> dict[str, list[Tensor]]:
        """Taps that change nothing."""
        return {
            layer.weight: [self.state[layer.weight].new_zeros(shape) for _, shape in layer.calls]
            for layer in self.layers
        }


@contextmanager
def problem(
    model: nn.Module, loss: Loss, part: str, example: Tensor, *, training: bool = False, factor: bool = True
) -> Iterator[Problem]:
    """Prepare `model` for per-example derivatives, and leave it as it was found.

    Args:
        model: holds the encoder as the submodule `part`; `""` if it is the encoder.
        loss: `loss(model, x)` of a batch x, a scalar.
        part: name of the submodule whose parameters are differentiated: those that require gradients, or all
            where none does.
        example: one example `(…)`, to see what the loss calls.
        training: put the model into training mode (batch norm over the single example) instead of evaluation
            mode.
        factor: take the gradients of linear and convolutional layers from their inputs and the slopes of
            their outputs, where the loss meets their weights nowhere else.

    Raises:
        ValueError: no such submodule, one without parameters, or a loss that does not depend on them.
    """
    if part not in dict(model.named_modules()):
        children = ", ".join(name for name, _ in model.named_children()) or "none"
        raise ValueError(
            f"part={part!r} is no submodule of the model; its children are: {children}. "
            "Pass part='' for the whole model."
        )
    setting = Problem(model, loss, part, at_least_single(example), factor)
    if not setting.names:
        raise ValueError(
            f"The submodule {part!r} has no parameters, so no loss can be differentiated with respect to them."
        )
    modules = list(model.modules())
    modes = [(module, module.training) for module in modules]
    norms = [
        (module, module.track_running_stats)
        for module in modules
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # The last of the encoder's hooks, so that it sees what the loss sees.
    hook = model.get_submodule(part).register_forward_hook(lambda _, __, output: _shift(setting, output))
    try:
        model.train(training)
        for module, tracks in norms:
            # Without statistics to track, training mode normalises by the batch and leaves the buffers alone.
            module.track_running_stats = tracks and not training
        torch.backends.mha.set_fastpath_enabled(False)
        # The fused attention kernels have no forward derivatives.
        with torch.random.fork_rng(), sdpa_kernel(SDPBackend.MATH):
            setting.load(model.state_dict())
            yield setting
    finally:
        hook.remove()
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, mode in modes:
            module.training = mode
        for module, tracks in norms:
            module.track_running_stats = tracks


class _Call(nn.Module):
    def __init__(self, model: nn.Module, loss: Loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Tensor) -> Tensor:
        return self.loss(self.model, batch)


def _shift(setting: Problem, output: Tensor) -> Tensor | None:
    # What a loss computes under no_grad, such as a contrastive loss's negatives, is a constant to it.
    if not torch.is_grad_enabled():
        return None
    setting.latents.append(output)
    setting.nodes.append(output.grad_fn)
    return output + setting.shifts[len(setting.latents) - 1] if setting.shifts else None
