"""An LSTM written out in single steps, since torch cannot batch or twice differentiate the fused one."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def written_out(model: nn.Module) -> Iterator[None]:
    """Within this context every LSTM of `model` runs step by step.

    Raises:
        ValueError: a recurrent layer that cannot be written out (GRU, plain RNN, bidirectional, projected).
    """
    layers = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    for layer in layers:
        if not isinstance(layer, nn.LSTM) or layer.bidirectional or layer.proj_size:
            raise ValueError(f"Curvature is known of one-directional LSTMs without projection only, got {layer}.")
    try:
        for layer in layers:
            layer.forward = functools.partial(_lstm, layer)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _lstm(module: nn.LSTM, inputs: Tensor, state: tuple[Tensor, Tensor] | None = None):
    sequence = inputs if module.batch_first else inputs.transpose(0, 1)
    last_hidden, last_cell = [], []
    for layer in range(module.num_layers):
        into, within = (getattr(module, f"{kind}_l{layer}") for kind in ("weight_ih", "weight_hh"))
        biases = [getattr(module, f"{kind}_l{layer}") for kind in ("bias_ih", "bias_hh")] if module.bias else []
        zeros = sequence.new_zeros(len(sequence), module.hidden_size)
        hidden, cell = (zeros, zeros) if state is None else (state[0][layer], state[1][layer])
        gates, outputs = sequence @ into.T + sum(biases), []
        for step in range(gates.shape[1]):
            i, f, g, o = (gates[:, step] + hidden @ within.T).chunk(4, -1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            outputs.append(hidden)
        sequence = torch.stack(outputs, 1)
        last_hidden.append(hidden)
        last_cell.append(cell)
    outputs = sequence if module.batch_first else sequence.transpose(0, 1)
    return outputs, (torch.stack(last_hidden), torch.stack(last_cell))
