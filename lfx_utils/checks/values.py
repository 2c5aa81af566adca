"""Checks of numbers and tensors by themselves."""

import torch
from torch import Tensor


def all_finite(values: Tensor) -> bool:
    """Say whether no value of a non-empty tensor is NaN or infinite."""
    # The extremes show a NaN, too, and are found many times faster than each value's finiteness.
    return bool(torch.stack(values.detach().aminmax()).isfinite().all())


def finite(name: str, values: Tensor) -> Tensor:
    """Return `values` of any type; raise ValueError where some are NaN or infinite."""
    if values.is_floating_point() and values.numel() and not all_finite(values):
        bad = int((~values.isfinite()).sum())
        raise ValueError(f"{name} holds {bad} NaN or infinite values out of {values.numel()}.")
    return values


def counts(**values: int) -> None:
    """Raise ValueError unless every value, named as the argument that it is, is an integer of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")


def probabilities(name: str, values: Tensor) -> Tensor:
    """Return `values` if all lie in [0, 1], where a pixel or a target must lie to have the likelihood of one.

    Raises:
        ValueError: a value outside, by more than rounding.
    """
    try:
        low, high = (each.item() for each in values.detach().aminmax())
    except RuntimeError:  # under vmap no value can be looked at: ensembles take the loss of a first batch without it
        return values
    if not (low >= -1e-3 and high <= 1.001):
        raise ValueError(f"{name} must lie in [0, 1], got values from {low:g} to {high:g}; scale them first.")
    return values


def positive_definite(inner: Tensor) -> Tensor:
    """Return `inner` if it is a symmetric positive definite matrix `(D, D)`; raise ValueError otherwise."""
    if not isinstance(inner, Tensor) or inner.dim() != 2 or inner.shape[0] != inner.shape[1]:
        raise ValueError(f"inner must be a square matrix (D, D), got {getattr(inner, 'shape', inner)}.")
    if not torch.allclose(inner, inner.T) or torch.linalg.cholesky_ex(inner).info:
        raise ValueError("inner must be symmetric positive definite, or it is no inner product.")
    return inner


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
