"""TracIn: the inner products of loss gradients along the training path."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.examples.gradients import inner, loss_gradients, row_size
from lfx_utils.examples.precision import at_least_single
from lfx_utils.examples.problem import Loss, problem
from lfx_utils.examples.projection import Projection
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
    projection: int | None = None,
) -> Tensor:
    """TracIn scores Σₜ ηₜ ⟨∇L(x, θₜ), ∇L(xⁿ, θₜ)⟩, with gradients of the encoder's parameters only.

    Of these, the ones that require gradients count: what training held fixed carries no influence. An encoder
    none of whose parameters requires gradients was frozen after its training, and all of them count. The model
    is evaluated in evaluation mode. Where the loss is an expectation over noise, as in a denoising autoencoder,
    it is replaced by its mean over a fixed set of draws, the same for every example and checkpoint.

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
        memory: megabytes for the gradients of test and training examples held at once, and those in the
            making. At least one of each is held; where not all of the smaller side fit, those of the larger
            side are computed again for each block of them.
        projection: keep about this many numbers of each layer's gradient, by a random projection that `seed`
            draws, so that the gradients of large encoders fit into memory. The scores are then right on average.
            Their error falls as the number grows, and depends on the encoder: compare on a few examples of yours.

    Returns:
        Scores `(n_test, n_train)`: positive for proponents, negative for opponents. Half-precision inputs,
        models and checkpoints are taken in float32, and so are their scores.

    Raises:
        TypeError: checkpoints that are no pairs.
        ValueError: no checkpoints, checkpoints of another architecture or with values that are not finite,
            inputs that are no finite batch, a `part` that the model does not have, or a loss that is not a
            scalar or does not depend on the part's parameters.

    Source: LF, Section 3.1, Table 4 and Algorithm 3; Pruthi et al. 2020.
    """
    test, train = (at_least_single(checks.batch(name, images)) for name, images in (("test", test), ("train", train)))
    _check_checkpoints(model, checkpoints)
    if draws < 1 or (as_published and draws > 1):
        raise ValueError(f"draws must be at least 1, and 1 with as_published=True, got {draws}.")
    if not memory > 0:
        raise ValueError(f"memory must be a positive number of megabytes, got {memory}.")
    if projection is not None and (not isinstance(projection, int) or projection < 1):
        raise ValueError(f"projection must be a positive whole number, or None, got {projection!r}.")
    scores = test.new_zeros(len(test), len(train))
    fixed = None if as_published else seed
    with problem(
        model, loss, part, train[0], training=as_published, factor=draws == 1 or projection is not None
    ) as setting:
        torch.manual_seed(seed)
        for state, learning_rate in tqdm(checkpoints, desc="TracIn"):
            setting.load(state)
            # Half of the memory holds gradients of the smaller side, a quarter those of the other, which are
            # made anew for each block of the smaller; the last quarter is for their making.
            directions = Projection(setting, projection, seed) if projection else None
            quarter = memory * 2**18 / train.element_size()
            made = max(1, int(quarter / row_size(setting, directions)))
            kept = max(1, int(quarter / directions.numbers)) if directions else made
            options = {"draws": draws, "seed": fixed, "at_once": made, "projection": directions}
            few, many, turned = (test, train, False) if len(test) <= len(train) else (train, test, True)
            for start in range(0, len(few), 2 * kept):
                rows = slice(start, start + 2 * kept)
                held = loss_gradients(setting, few[rows], **options)
                for first in range(0, len(many), kept):
                    others = slice(first, first + kept)
                    passing = loss_gradients(setting, many[others], **options)
                    products = learning_rate * inner(held, passing)
                    if turned:
                        scores[others, rows] += products.T
                    else:
                        scores[rows, others] += products
    return scores


def _check_checkpoints(model: nn.Module, checkpoints: Sequence) -> None:
    if isinstance(checkpoints, Mapping) or not isinstance(checkpoints, Sequence):
        raise TypeError(
            "checkpoints must be a list of pairs (state dict, learning rate), one for each checkpoint, got "
            f"{type(checkpoints).__name__}."
        )
    if not checkpoints:
        raise ValueError("checkpoints is empty; TracIn needs at least one pair (state dict, learning rate).")
    for number, pair in enumerate(checkpoints):
        if not (isinstance(pair, Sequence) and len(pair) == 2 and isinstance(pair[0], Mapping)):
            raise TypeError(
                f"Each checkpoint must be a pair (state dict of the model, learning rate), got "
                f"{type(pair).__name__} at checkpoints[{number}]."
            )
        state, rate = pair
        if not isinstance(rate, Real | Tensor) or not math.isfinite(rate):
            raise ValueError(f"The learning rate of checkpoints[{number}] must be a finite number, got {rate!r}.")
        _check_state(model, state, number)


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
    infinite = [
        name for name in own if name in state and state[name].is_floating_point() and not state[name].isfinite().all()
    ]
    if infinite:
        raise ValueError(f"Checkpoint {number} holds NaN or infinite values in {', '.join(infinite[:3])}.")
    complaints = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(complaints.values()):
        what = "; ".join(
            f"{kind}: {', '.join(names[:3])}{' …' * (len(names) > 3)}" for kind, names in complaints.items() if names
        )
        raise ValueError(f"Checkpoint {number} belongs to another architecture ({what}).")
