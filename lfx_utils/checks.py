"""Argument checks shared by every explainer: one clear sentence instead of a wrong map."""

import math
import weakref

import numpy as np
import torch
from torch import Tensor, nn


def all_finite(values: Tensor) -> bool:
    """Say whether no value of a non-empty tensor is NaN or infinite."""
    # The extremes show a NaN, too, and are found many times faster than each value's finiteness.
    return bool(torch.stack(values.detach().aminmax()).isfinite().all())


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


def counts(**values: int) -> None:
    """Raise ValueError unless every value, named as the argument that it is, is an integer of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")


def finite(name: str, values: Tensor) -> Tensor:
    """Return `values` of any type; raise ValueError where some are NaN or infinite."""
    if values.is_floating_point() and values.numel() and not all_finite(values):
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


def on_copies(encoder, *inputs):
    """Return the encoder's output on copies of the tensors among `inputs`: one that works in place may change those."""
    return encoder(*(value.clone() if isinstance(value, Tensor) else value for value in inputs))


_PROVEN = weakref.WeakKeyDictionary()  # modules that `function` has passed, each with the circumstances


def function(encoder, inputs: tuple[Tensor, ...], further: tuple = (), *, gradient: bool = False) -> None:
    """Raise unless `encoder` is a function of its inputs, and where a gradient is needed a differentiable one.

    A module is asked once: again only when the inputs' shape or precision, a mode, or its hooks have changed. A mere
    function is asked at every call, since nothing shows whether what it calls has changed.

    Args:
        encoder: in evaluation mode; a representation `(B, D)`, or what else it returns, is compared with itself.
        inputs: a few rows of each input, which are encoded twice.
        further: arguments that follow the inputs.
        gradient: whether the explanation rests on the gradient of the representation in the inputs.

    Raises:
        ValueError: the second output differs from the first by more than 0.1 % of its norm, or no gradient comes back.
    """
    module = isinstance(encoder, nn.Module)
    proven = _PROVEN.setdefault(encoder, set()) if module else set()
    parts = tuple((id(part), part.training, len(part._forward_hooks)) for part in encoder.modules()) if module else ()
    now = (gradient, parts, *((each.shape[1:], each.dtype, each.device) for each in inputs))
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


def single(values: Tensor) -> Tensor:
    """Return `values`, in single precision where they come in half, since sums overflow and round in that."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def explained(maps: Tensor) -> Tensor:
    """Return `maps` if they are finite; raise ValueError otherwise."""
    if not all_finite(maps):
        raise ValueError(
            f"The maps hold {int((~torch.isfinite(maps)).sum())} NaN or infinite values out of {maps.numel()}: on the "
            "way back the encoder's gradient overflows, as it can in half precision, or is not defined."
        )
    return maps
