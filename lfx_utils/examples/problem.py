"""A loss as a function of the encoder's parameters: set up for one example at a time, and cleaned up after."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

Loss = Callable[[nn.Module, Tensor], Tensor]


class Problem:
    """A loss of one example as a function of the encoder's parameters; made by `problem`."""

    def __init__(self, model: nn.Module, loss: Loss, part: str):
        self.model, self.call, self.part = model, _Call(model, loss), part
        inside = [
            (name, p)
            for name, p in model.named_parameters(remove_duplicate=False)
            if not part or name.startswith(part + ".")
        ]
        # A weight that the encoder shares with another module counts once, under the encoder's name.
        names = {id(parameter): name for name, parameter in [*model.named_parameters(), *inside]}
        self.names = [names[i] for i in dict.fromkeys(id(parameter) for _, parameter in inside)]
        self.kept = {*names.values(), *(name for name, _ in model.named_buffers())}
        self.load(model.state_dict())
        self.layers: dict[str, nn.Linear] = {}
        self.taps: Mapping[str, Tensor] = {}
        self.shifts: list[Tensor] = []
        self.activations: dict[str, Tensor] = {}
        self.latents: list[Tensor] = []
        # torch has no batching rule for the fused recurrent kernels, and one example after the other is
        # faster with them than all at once without.
        self.recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
        # What the noise in the loss is drawn from, anew in every evaluation; None lets the generator run on.
        self.seed: int | None = None

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take parameters and buffers from a state dict; the model itself keeps its own."""
        own = next(iter(self.model.parameters()), torch.zeros(()))
        self.state = {name: tensor.detach().to(own.device) for name, tensor in state.items() if name in self.kept}

    def weights(self) -> dict[str, Tensor]:
        """The parameters that are differentiated as they are; those of `layers` go through their taps."""
        factored = {f"{name}.{kind}" for name in self.layers for kind in ("weight", "bias")}
        return {name: self.state[name] for name in self.names if name not in factored}

    def __call__(
        self, weights: Mapping[str, Tensor], taps: Mapping[str, Tensor], shifts: list[Tensor], example: Tensor
    ):
        """Loss of one example `(…)`, with `taps` added to the linear layers' outputs and `shifts` to the
        encoder's.

        Returns:
            The scalar loss, the linear layers' inputs by name, and the encoder's outputs, one for each call.
        """
        self.taps, self.shifts, self.activations, self.latents = taps, shifts, {}, []
        if self.seed is not None:
            torch.manual_seed(self.seed)
        state = {f"model.{name}": tensor for name, tensor in {**self.state, **weights}.items()}
        value = functional_call(self.call, state, (example.unsqueeze(0),))
        if not isinstance(value, Tensor) or value.dim() != 0:
            came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"loss(model, x) must return a scalar tensor, got {came}.")
        return value, self.activations, self.latents

    def zero_taps(self, like: Tensor) -> dict[str, Tensor]:
        """Taps that change nothing."""
        return {name: like.new_zeros(layer.out_features) for name, layer in self.layers.items()}


@contextmanager
def problem(
    model: nn.Module, loss: Loss, part: str, example: Tensor, *, training: bool = False, factor: bool = True
) -> Iterator[Problem]:
    """Prepare `model` for per-example derivatives, and leave it as it was found.

    Args:
        model: holds the encoder as the submodule `part`; `""` if it is the encoder.
        loss: `loss(model, x)` of a batch x, a scalar.
        part: name of the submodule whose parameters are differentiated.
        example: one example `(…)`, to see what the loss calls.
        training: put the model into training mode (batch norm over the single example) instead of evaluation
            mode.
        factor: keep linear layers' gradients as outer products where an example passes them as a single row.

    Raises:
        ValueError: no such submodule, or one without parameters.
    """
    if part not in dict(model.named_modules()):
        children = ", ".join(name for name, _ in model.named_children()) or "none"
        raise ValueError(
            f"part={part!r} is no submodule of the model; its children are: {children}. "
            "Pass part='' for the whole model."
        )
    setting = Problem(model, loss, part)
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
    hooks = []
    try:
        model.train(training)
        for module, tracks in norms:
            # Without statistics to track, training mode normalises by the batch and leaves the buffers alone.
            module.track_running_stats = tracks and not training
        torch.backends.mha.set_fastpath_enabled(False)
        if factor:
            setting.layers = _single_row_layers(setting, example)
            for name, layer in setting.layers.items():
                hooks.append(
                    layer.register_forward_hook(
                        lambda _, inputs, output, name=name: _tap(setting, name, inputs, output)
                    )
                )
        # After the taps, for an encoder that is itself a linear layer.
        hooks.append(model.get_submodule(part).register_forward_hook(lambda _, __, output: _shift(setting, output)))
        # The fused attention kernels have no forward derivatives.
        with torch.random.fork_rng(), sdpa_kernel(SDPBackend.MATH):
            yield setting
    finally:
        for hook in hooks:
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


def _single_row_layers(setting: Problem, example: Tensor) -> dict[str, nn.Linear]:
    """The encoder's linear layers that see one row an example, once, and share their weights with no other."""
    owners = {}
    for name, parameter in setting.model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    rows: dict[str, int] = {}

    def count(name, inputs):
        if torch.is_grad_enabled():
            rows[name] = rows.get(name, 0) + inputs[0].shape[:-1].numel()

    candidates = {
        name: module
        for name, module in setting.model.named_modules()
        if type(module) is nn.Linear
        and f"{name}.weight" in setting.names
        and all(len(owners[id(parameter)]) == 1 for parameter in module.parameters())
    }
    hooks = [
        module.register_forward_hook(lambda _, inputs, __, name=name: count(name, inputs))
        for name, module in candidates.items()
    ]
    try:
        with torch.enable_grad(), torch.random.fork_rng():
            setting({}, {}, [], example)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: module for name, module in candidates.items() if rows.get(name) == 1}


def _tap(setting: Problem, name: str, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    if not torch.is_grad_enabled():
        return None
    setting.activations[name] = inputs[0].reshape(-1)
    return output + setting.taps[name] if setting.taps else None


def _shift(setting: Problem, output: Tensor) -> Tensor | None:
    # What a loss computes under no_grad, such as a contrastive loss's negatives, is a constant to it.
    if not torch.is_grad_enabled():
        return None
    setting.latents.append(output)
    return output + setting.shifts[len(setting.latents) - 1] if setting.shifts else None
