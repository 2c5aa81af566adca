"""How many rows at once: what Captum makes of an input is bounded, and a batch is cut and joined again."""

import inspect
from collections.abc import Callable

import torch
from captum.attr import Attribution, DeepLift, DeepLiftShap, GradientShap, NoiseTunnel
from captum.attr._core.gradient_shap import InputBaselineXGradient
from torch import Tensor

AT_ONCE = 2**20  # Values that integrated gradients sends through the encoder at once; seven images of 224×224.


def innermost(attribution: Attribution) -> Attribution:
    return getattr(attribution, "attribution_method", attribution)


def affordable(rows: tuple[Tensor, ...]) -> int:
    """Return how many rows go through the encoder at once unless the user says so: what costs memory is their size.

    On a processor more than a few images at once gain no time; a GPU wants many.
    """
    values = AT_ONCE * (16 if rows[0].is_cuda else 1)
    return max(1, min(256, values // sum(row[0].numel() for row in rows)))


def bounded(attribution: Attribution, bound: int, baselines, options: dict) -> tuple[Attribution, dict, int]:
    """Return attribution, options and how many inputs to take at a time for `bound` rows to be enough."""
    if not isinstance(bound, int) or bound < 1:
        raise ValueError(f"internal_batch_size must be a positive integer, got {bound!r}.")
    if isinstance(attribution, GradientShap):
        # Captum's Gradient SHAP is this noise tunnel, with the tunnel's own batch size out of reach.
        gradients = InputBaselineXGradient(attribution.forward_func, attribution.multiplies_by_inputs)
        attribution, samples = NoiseTunnel(gradients), options.pop("n_samples", 5)
        options = {"stdevs": 0.0, **options, "nt_samples": samples, "draw_baseline_from_distrib": True}
    method, rows = innermost(attribution), options.get("perturbations_per_eval", 1)
    if isinstance(method, DeepLift):
        references = baselines[0] if isinstance(baselines, tuple) else baselines
        rows = 2 * (len(references) if isinstance(method, DeepLiftShap) and isinstance(references, Tensor) else 1)
    if rows > bound:
        raise ValueError(
            f"internal_batch_size must be at least {rows}, as {type(method).__name__} compares {rows} rows at once, "
            f"got {bound}."
        )
    if "internal_batch_size" in inspect.signature(method.attribute).parameters:
        options["internal_batch_size"] = bound
    if isinstance(attribution, NoiseTunnel):
        options["nt_samples_batch_size"] = min(options.get("nt_samples", 5), bound // rows)
        rows *= options["nt_samples_batch_size"]
    return attribution, options, bound // rows


def cut(value, part: slice, size: int):
    """Cut each tensor that has a row for each of `size` inputs, however deep it lies; the batch shares all else."""
    if isinstance(value, tuple):
        return tuple(cut(item, part, size) for item in value)
    if isinstance(value, dict):
        return {name: cut(item, part, size) for name, item in value.items()}
    return value[part] if isinstance(value, Tensor) and value.dim() and len(value) == size else value


def each(value, function: Callable[[Tensor], Tensor]):
    """Apply a function to every tensor of a value or of a tuple of them."""
    if isinstance(value, tuple):
        return tuple(each(item, function) for item in value)
    return function(value) if isinstance(value, Tensor) else value


def join(results: list):
    """Concatenate equally nested results along the batch, free of their graphs."""
    if isinstance(results[0], tuple):
        return tuple(join(list(items)) for items in zip(*results, strict=True))
    return torch.cat([result.detach() for result in results])
