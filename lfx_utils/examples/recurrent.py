"""An LSTM written out in single steps, since torch cannot batch or twice differentiate the fused one."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def written_out(model: nn.Module, second_order: bool = False) -> Iterator[None]:
    """Within this context every LSTM of `model` runs step by step.

    Args:
        model: any module.
        second_order: keep derivatives of every order with respect to the weights, at several times the cost.

    Raises:
        ValueError: a recurrent layer that cannot be written out (GRU, plain RNN, bidirectional, projected).
    """
    layers = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    for layer in layers:
        if not isinstance(layer, nn.LSTM) or layer.bidirectional or layer.proj_size:
            raise ValueError(f"The curvature is known of one-directional LSTMs without projection only; the model holds {layer}.")
    try:
        for layer in layers:
            layer.forward = functools.partial(_lstm, layer, second_order)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _lstm(module: nn.LSTM, second_order: bool, inputs: Tensor, state: tuple[Tensor, Tensor] | None = None):
    sequence = inputs if module.batch_first else inputs.transpose(0, 1)
    last_hidden, last_cell = [], []
    for layer in range(module.num_layers):
        weights = [getattr(module, f"{kind}_l{layer}") for kind in ("weight_ih", "weight_hh")]
        biases = [getattr(module, f"{kind}_l{layer}") if module.bias else 0 for kind in ("bias_ih", "bias_hh")]
        zeros = sequence.new_zeros(len(sequence), module.hidden_size)
        start = (zeros, zeros) if state is None else (state[0][layer], state[1][layer])
        sequence, hidden, cell = _layer(sequence, *weights, sum(biases), start, second_order)
        last_hidden.append(hidden)
        last_cell.append(cell)
        if layer + 1 < module.num_layers and module.training and module.dropout:
            sequence = F.dropout(sequence, module.dropout)
    outputs = sequence if module.batch_first else sequence.transpose(0, 1)
    return outputs, (torch.stack(last_hidden), torch.stack(last_cell))


def _layer(sequence: Tensor, into: Tensor, within: Tensor, bias, start: tuple[Tensor, Tensor], second_order: bool):
    gates = sequence @ into.T + bias
    if second_order:
        return _unroll(gates, within, start, None)
    # The gradient of `within` would cost one outer product a step and example. Instead a first pass finds the hidden
    # states; in the second they meet `within` in one product, and each step adds only its deviation from them: zero in
    # value, yet it carries the gradient from step to step.
    outputs, *_ = _unroll(gates.detach(), within.detach(), tuple(part.detach() for part in start), None)
    before = torch.cat([start[0].detach().unsqueeze(1), outputs[:, :-1]], 1)
    return _unroll(gates + before @ within.T, within.detach(), start, before)


def _unroll(gates: Tensor, within: Tensor, start: tuple[Tensor, Tensor], before: Tensor | None):
    hidden, cell = start
    outputs = []
    for step in range(gates.shape[1]):
        deviation = hidden if before is None else hidden - before[:, step]
        i, f, g, o = (gates[:, step] + deviation @ within.T).chunk(4, -1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        outputs.append(hidden)
    return torch.stack(outputs, 1), hidden, cell
