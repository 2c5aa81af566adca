"""Argument checks shared by every explainer: one clear sentence instead of a wrong map."""

import math

import torch
from torch import Tensor, nn


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
    if not torch.isfinite(inputs).all():
        bad = int((~torch.isfinite(inputs)).sum())
        raise ValueError(
            f"{name} holds {bad} NaN or infinite values out of {inputs.numel()}; finite values are needed."
        )
    return inputs


def rows(inputs: tuple[Tensor, ...]) -> int:
    """Return the common batch size of several inputs, each checked by `batch`.

    Raises:
        ValueError: batches of different sizes.
    """
    for index, tensor in enumerate(inputs):
        batch("inputs" if len(inputs) == 1 else f"inputs[{index}]", tensor)
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
        batch("baselines", baseline)
        if baseline.shape[1:] != tensor.shape[1:] or not (shared or len(baseline) in (1, len(tensor))):
            raise ValueError(
                f"baselines must have the inputs' shape {tuple(tensor.shape)}, or 1 as first axis, "
                f"got {tuple(baseline.shape)}."
            )


def positive_definite(inner: Tensor) -> Tensor:
    """Return `inner` if it is a symmetric positive definite matrix `(D, D)`; raise ValueError otherwise."""
    if not isinstance(inner, Tensor) or inner.dim() != 2 or inner.shape[0] != inner.shape[1]:
        raise ValueError(f"inner must be a square matrix (D, D), got {getattr(inner, 'shape', inner)}.")
    if not torch.allclose(inner, inner.T) or torch.linalg.cholesky_ex(inner).info:
        raise ValueError("inner must be symmetric positive definite, or it is no inner product.")
    return inner


def latent(output, size: int) -> Tensor:
    """Return the encoder's `output` if it is a finite representation of shape `(B, D)` with `B = size`.

    Raises:
        TypeError: not a tensor (a tuple of outputs, say).
        ValueError: another rank or batch size, NaN or infinite values.
    """
    if not isinstance(output, Tensor):
        raise TypeError(
            f"The encoder must return one tensor of shape (B, D), got {type(output).__name__}; "
            "wrap it in a function that picks the representation."
        )
    if output.dim() != 2 or len(output) != size:
        raise ValueError(
            f"The encoder must return representations of shape (B, D) = ({size}, D), got {tuple(output.shape)}; "
            "flatten or pool them first."
        )
    if not torch.isfinite(output).all():
        raise ValueError("The encoder returned NaN or infinite representations for finite inputs.")
    return output


def evaluating(encoder) -> None:
    """Raise if any submodule of `encoder` is in training mode, where dropout and batch statistics would enter the map.

    Raises:
        TypeError: the encoder cannot be called.
        ValueError: a submodule is in training mode.
    """
    if not callable(encoder):
        raise TypeError(f"encoder must be callable, got {type(encoder).__name__}.")
    if isinstance(encoder, nn.Module):
        training = [name or "the encoder itself" for name, module in encoder.named_modules() if module.training]
        if training:
            raise ValueError(
                f"encoder is in training mode ({training[0]}); call encoder.eval() first, "
                "since dropout and batch statistics would change the explanation."
            )


def counts(**values: int) -> None:
    """Raise ValueError unless every value, named as the argument that it is, is an integer of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")


def finite(name: str, values: Tensor) -> Tensor:
    """Return `values` of any type; raise ValueError where some are NaN or infinite."""
    # The extremes show a NaN, too, and are found many times faster than each value's finiteness.
    if values.is_floating_point() and values.numel() and not torch.stack(values.aminmax()).isfinite().all():
        bad = int((~values.isfinite()).sum())
        raise ValueError(f"{name} holds {bad} NaN or infinite values out of {values.numel()}.")
    return values


def probabilities(name: str, values: Tensor) -> Tensor:
    """Return `values` if all lie in [0, 1], where a pixel or a target must lie to have the likelihood of one.

    Raises:
        ValueError: a value outside, by more than rounding.
    """
    # Under vmap no value can be looked at: ensembles take the loss of a first batch without it.
    if not torch._C._functorch.is_functorch_wrapped_tensor(values):
        low, high = (each.item() for each in values.detach().aminmax())
        if not (low >= -1e-3 and high <= 1.001):
            raise ValueError(f"{name} must lie in [0, 1], got values from {low:g} to {high:g}; scale them first.")
    return values
