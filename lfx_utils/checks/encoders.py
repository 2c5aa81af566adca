"""Checks of an encoder: its mode, its output, and that it is a function at all."""

import weakref

import numpy as np
import torch
from torch import Tensor, nn

from lfx_utils.checks.values import all_finite


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
    if not all_finite(output):
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


def on_copies(encoder, *inputs):
    """Return the encoder's output on copies of the tensors among `inputs`: one that works in place may change those."""
    return encoder(*(value.clone() if isinstance(value, Tensor) else value for value in inputs))


_PROVEN = weakref.WeakKeyDictionary()  # modules that `function` has passed, each with the circumstances


def _circumstances(module: nn.Module, inputs: tuple[Tensor, ...], gradient: bool) -> tuple:
    """What a module's answer hangs on besides its weights, so that a module found sound need not be asked again."""
    parts = tuple(
        (id(part), len(part._forward_hooks), len(part._forward_pre_hooks), id(part.__dict__.get("forward")))
        + tuple(value for value in part.__dict__.values() if isinstance(value, bool | int | float | str))
        for part in module.modules()
    )
    modes = gradient, torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    return modes, parts, *((each.shape[1:], each.dtype, each.device) for each in inputs)


def function(encoder, inputs: tuple[Tensor, ...], further: tuple = (), *, gradient: bool = False) -> None:
    """Raise unless `encoder` is a function of its inputs, and where a gradient is needed a differentiable one.

    A module that has passed is asked again only when the inputs' shape or precision, a mode, a hook or a number that
    one of its parts keeps has changed. What is no module, or is given further arguments, is asked at every call.

    Args:
        encoder: in evaluation mode; a representation `(B, D)`, or what else it returns, is compared with itself.
        inputs: a few rows of each input, which are encoded twice.
        further: arguments that follow the inputs.
        gradient: whether the explanation rests on the gradient of the representation in the inputs.

    Raises:
        ValueError: the second output differs from the first by more than 0.1 % of its norm, or no gradient comes back.
    """
    module = isinstance(encoder, nn.Module) and not further  # further arguments may switch something on
    proven = _PROVEN.setdefault(encoder, set()) if module else set()
    now = hash(_circumstances(encoder, inputs, gradient)) if module else 0
    if now in proven:
        return
    with torch.set_grad_enabled(gradient):
        asked = tuple(value.detach().clone().requires_grad_(gradient) for value in inputs)
        first = on_copies(encoder, *asked, *further)
        if gradient and isinstance(first, Tensor):
            reached = torch.autograd.grad(first.sum(), asked, allow_unused=True) if first.requires_grad else (None,)
            if any(found is None for found in reached):
                raise ValueError(
                    "encoder passes no gradient back to its inputs, which this method needs: it runs under "
                    "torch.no_grad or torch.inference_mode, detaches, or does not use an input. Take that off, or use "
                    "a method that needs none, such as captum.attr.FeatureAblation or RELAX."
                )
    with torch.no_grad():
        second = on_copies(encoder, *inputs, *further)
    first, second = (torch.as_tensor(each) if isinstance(each, np.ndarray) else each for each in (first, second))
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return
    first, second = first.detach().double(), second.double()
    apart = (first - second).norm() / first.norm() if first.shape == second.shape else torch.tensor(1.0)
    if apart > 1e-3:
        raise ValueError(
            f"encoder returned two representations of the same inputs that differ by {apart:.1%} of their norm, so it "
            "draws at random (dropout that is always on, the sample of a VAE) or keeps a state between calls, and its "
            "map would be one of noise. Let it return the mean, or draw the same at each call."
        )
    proven.add(now)
