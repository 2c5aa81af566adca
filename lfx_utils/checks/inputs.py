"""Checks of what is to be explained: batches, token ids, and the baselines beside them."""

import math

import torch
from torch import Tensor

from lfx_utils.checks.values import all_finite


def batch(name: str, inputs) -> Tensor:
    """Return `inputs` if it is a non-empty, finite, floating-point batch.

    Args:
        name: the argument's name, used in the message.
        inputs: tensor `(B, …)` with at least one feature axis.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: no feature axis, an empty batch, NaN or infinite values.
    """
    if not isinstance(inputs, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape (B, …), got {type(inputs).__name__}.")
    if not inputs.is_floating_point():
        raise TypeError(f"{name} must hold floating-point values, got {inputs.dtype}.")
    if inputs.dim() < 2:
        raise ValueError(f"{name} must have shape (B, …) with at least one feature axis, got {tuple(inputs.shape)}.")
    if inputs.numel() == 0:
        raise ValueError(f"{name} is an empty batch of shape {tuple(inputs.shape)}; at least one example is needed.")
    if not all_finite(inputs):
        bad = int((~torch.isfinite(inputs)).sum())
        raise ValueError(
            f"{name} holds {bad} NaN or infinite values out of {inputs.numel()}; finite values are needed."
        )
    return inputs


def tokens(name: str, ids, vocabulary: int | None = None) -> Tensor:
    """Return `ids` if it is a non-empty batch of integers, such as token ids or a padding mask.

    Args:
        name: the argument's name, used in the message.
        ids: integers or booleans `(B, T)`.
        vocabulary: how many tokens there are.

    Raises:
        TypeError: not a tensor of integers.
        ValueError: another rank, an empty batch, or ids that are not in the vocabulary.
    """
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.is_complex():
        came = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise TypeError(f"{name} must be a torch.Tensor (B, T) of integers, got {came}.")
    if ids.dim() != 2 or not ids.numel():
        raise ValueError(f"{name} must have shape (B, T) with at least one token, got {tuple(ids.shape)}.")
    if vocabulary is not None and not 0 <= ids.min() <= ids.max() < vocabulary:
        raise ValueError(
            f"{name} must lie between 0 and {vocabulary - 1}, the encoder's vocabulary, got {int(ids.min())} to "
            f"{int(ids.max())}; was the text cut by the tokenizer of another encoder?"
        )
    return ids


def rows(inputs: tuple[Tensor, ...], integers: bool = False) -> int:
    """Return the common batch size of several inputs, each checked by `batch`.

    Args:
        integers: whether inputs may be token ids, too.

    Raises:
        ValueError: batches of different sizes.
    """
    for index, tensor in enumerate(inputs):
        ids = integers and isinstance(tensor, Tensor) and not tensor.is_floating_point()
        (tokens if ids else batch)("inputs" if len(inputs) == 1 else f"inputs[{index}]", tensor)
    sizes = {len(tensor) for tensor in inputs}
    if len(sizes) != 1:
        raise ValueError(f"inputs must be tensors with one row for each example, got batches of {sorted(sizes)}.")
    return sizes.pop()


def baselines(inputs: Tensor | tuple[Tensor, ...], given: Tensor | float | tuple, shared: bool) -> None:
    """Raise unless every baseline is a number, or a tensor shaped like its input or with a first axis of 1.

    Args:
        given: the baselines, a tuple where the inputs are one.
        shared: they are a distribution that the whole batch shares, of any length.
    """
    form, came = (f"a tuple of {len(x)}" if isinstance(x, tuple) else "no tuple" for x in (inputs, given))
    if form != came:
        raise ValueError(f"baselines must be {form}, as inputs is, got {came}.")
    for tensor, baseline in zip(inputs, given, strict=True) if isinstance(inputs, tuple) else [(inputs, given)]:
        if isinstance(baseline, int | float):
            if not math.isfinite(baseline):
                raise ValueError(f"baselines must be finite, got {baseline}.")
            continue
        ids = isinstance(baseline, Tensor) and not tensor.is_floating_point()
        (tokens if ids else batch)("baselines", baseline)
        if baseline.shape[1:] != tensor.shape[1:] or not (shared or len(baseline) in (1, len(tensor))):
            raise ValueError(
                f"baselines must have the inputs' shape {tuple(tensor.shape)}, or 1 as first axis, "
                f"got {tuple(baseline.shape)}."
            )
