"""TracIn: the inner products of loss gradients along the training path."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.examples.gradients import loss_gradients
from lfx_utils.examples.problem import Loss, problem
from lfx_utils.examples.rows import inner
from lfx_utils.progress import tqdm


def tracin(
    model: nn.Module,
    loss: Loss,
    checkpoints: Sequence[tuple[Mapping[str, Tensor], float]],
    test: Tensor,
    train: Tensor,
    *,
    part: str = "encoder",
    draws: int = 1,
    seed: int = 0,
    as_published: bool = False,
    memory: int = 512,
) -> Tensor:
    """TracIn scores Σₜ ηₜ ⟨∇L(x, θₜ), ∇L(xⁿ, θₜ)⟩, with gradients of the encoder's parameters only.

    The model is evaluated in evaluation mode. Where the loss is an expectation over noise, as in a denoising
    autoencoder, it is replaced by its mean over a fixed set of draws, the same for every example and
    checkpoint.

    Args:
        model: the model that was trained, holding the encoder as a submodule; neither its mode nor its
            weights change.
        loss: `loss(model, x)`, a scalar, for a batch x, as in training; noise comes from torch's global
            generator.
        checkpoints: pairs of a state dict of `model` and its learning rate ηₜ.
        test: `(n_test, …)`.
        train: `(n_train, …)`.
        part: name of the encoder within the model; `""` if the model is the encoder.
        draws: draws of the noise inside the loss.
        seed: of these draws.
        as_published: take the gradients as LF's code does, in training mode (batch norm over a single
            example) and with fresh noise for each.
        memory: megabytes for the training gradients held at once; test gradients are recomputed for each
            such block.

    Returns:
        Scores `(n_test, n_train)`: positive for proponents, negative for opponents.

    Raises:
        ValueError: no checkpoints, checkpoints of another architecture, inputs that are no finite batch, a
            `part` that the model does not have, or a loss that is not a scalar.

    Source: LF, Section 3.1, Table 4 and Algorithm 3; Pruthi et al. 2020.
    """
    checks.batch("test", test)
    checks.batch("train", train)
    if not checkpoints:
        raise ValueError("checkpoints is empty; TracIn needs at least one pair (state dict, learning rate).")
    for number, (state, _) in enumerate(checkpoints):
        _check_state(model, state, number)
    if draws < 1 or (as_published and draws > 1):
        raise ValueError(f"draws must be at least 1, and 1 with as_published=True, got {draws}.")
    scores = test.new_zeros(len(test), len(train))
    fixed = None if as_published else seed
    with problem(model, loss, part, train[0], training=as_published, factor=draws == 1) as setting:
        torch.manual_seed(seed)
        columns = sum(tensor.numel() for tensor in setting.weights().values()) + sum(
            layer.in_features + layer.out_features + 1 for layer in setting.layers.values()
        )
        at_once = max(1, int(memory * 2**20 / (columns * train.element_size())))
        for state, learning_rate in tqdm(checkpoints, desc="TracIn"):
            setting.load(state)
            for start in range(0, len(train), at_once):
                gradients = loss_gradients(setting, train[start : start + at_once], draws=draws, seed=fixed)
                for first in range(0, len(test), 200):
                    rows = loss_gradients(setting, test[first : first + 200], draws=draws, seed=fixed)
                    products = inner(rows, gradients)
                    scores[first : first + 200, start : start + at_once] += learning_rate * products
    return scores


def _check_state(model: nn.Module, state: Mapping[str, Tensor], number: int) -> None:
    own = model.state_dict()
    missing, unexpected = (
        [name for name in own if name not in state],
        [name for name in state if name not in own],
    )
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    complaints = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(complaints.values()):
        what = "; ".join(
            f"{kind}: {', '.join(names[:3])}{' …' * (len(names) > 3)}" for kind, names in complaints.items() if names
        )
        raise ValueError(f"Checkpoint {number} belongs to another architecture ({what}).")
