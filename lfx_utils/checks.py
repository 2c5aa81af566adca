"""Argument checks shared by every explainer: one clear sentence instead of a wrong map."""

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
        raise ValueError(f"{name} holds {bad} NaN or infinite values out of {inputs.numel()}; finite values are needed.")
    return inputs


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
