"""Label-free feature importance: any Captum attribution, applied to any encoder.

An encoder f has no single output to explain. Crabbé & van der Schaar (2022) explain a scalar instead: how far the
representation of x̃ points along that of x, g_x(x̃) = ⟨f(x), f(x̃)⟩, at x̃ = x.
"""

import inspect
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from captum.attr import (
    Attribution,
    DeepLift,
    DeepLiftShap,
    GradientAttribution,
    GradientShap,
    IntegratedGradients,
    LayerAttribution,
    NoiseTunnel,
)
from captum.attr._core.gradient_shap import InputBaselineXGradient
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.features import deep_lift

Tensors = Tensor | tuple[Tensor, ...]

PROBED = 2  # Rows on which it is tried whether the encoder is a function.
AT_ONCE = 2**20  # Values that integrated gradients sends through the encoder at once; seven images of 224×224.


class Auxiliary(nn.Module):
    """The scalar function to explain, g(x̃) = ⟨w, f(x̃)⟩, with one w a row as last argument but one.

    The last one says in which precision the encoder is to have each input, since Captum works in single precision.
    """

    def __init__(self, encoder: Callable[..., Tensor]):
        super().__init__()
        self.encoder = encoder

    def forward(self, *rows) -> Tensor:
        """Map inputs and any further arguments, then weights `(B, D)` and the inputs' dtypes, to g `(B,)`."""
        *inputs, weights, dtypes = rows
        inputs[: len(dtypes)] = (row.to(dtype) for row, dtype in zip(inputs, dtypes, strict=False))
        return (checks.single(checks.on_copies(self.encoder, *inputs)) * weights).sum(dim=-1)


class LabelFree:
    """Explain which features of an input shape its representation, with any Captum attribution.

    The weights w = f(x) are computed once and travel as an additional forward argument, so that Captum itself
    repeats them in step with the rows that it makes of each input: every row meets the f(x) of its own input.

    Args:
        method: what builds the attribution from a forward function: a Captum class, a `functools.partial` of
            one, or a composition such as `lambda forward: NoiseTunnel(Saliency(forward))`.
        encoder: f, in evaluation mode, from inputs `(B, …)` to representations `(B, D)`; an `nn.Module` for the
            methods that hook its layers (DeepLift, guided backpropagation).
        inner: symmetric positive definite matrix `(D, D)` of the inner product; Euclidean when left out.

    Raises:
        TypeError: `method` builds no Captum attribution, or hooks layers and the encoder is a mere function.
        ValueError: `inner` is not symmetric positive definite.

    Source:
        Crabbé & van der Schaar 2022, Definition 2.1 and Algorithm 1.

    >>> from captum.attr import IntegratedGradients
    >>> encoder = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).eval()
    >>> x = torch.rand(4, 3)
    >>> maps = LabelFree(IntegratedGradients, encoder).attribute(x, baselines=0.0)
    >>> gain = (encoder(x) * (encoder(x) - encoder(0 * x))).sum(1)
    >>> torch.allclose(maps.sum(1), gain, atol=1e-5)
    True
    """

    def __init__(self, method: Callable[..., Attribution], encoder: Callable[..., Tensor], inner: Tensor | None = None):
        self.encoder, self.inner = encoder, inner if inner is None else checks.positive_definite(inner)
        self.attribution = method(Auxiliary(encoder)) if callable(method) else None
        if not isinstance(self.attribution, Attribution):
            raise TypeError(
                "method must build a Captum attribution from a forward function, as the class "
                f"captum.attr.IntegratedGradients does, got {method!r}."
            )
        innermost = _innermost(self.attribution)
        if hasattr(innermost, "model") and not isinstance(encoder, nn.Module):
            raise TypeError(
                f"{type(innermost).__name__} hooks the encoder's layers, so encoder must be an nn.Module, "
                f"got {type(encoder).__name__}."
            )

    @torch.inference_mode(False)  # In which nothing could be differentiated, whatever the caller's mode.
    def attribute(
        self,
        inputs: Tensors,
        baselines: Tensors | float | Callable | None = None,
        *,
        weights: Tensor | None = None,
        internal_batch_size: int | None = None,
        additional_forward_args: Tensor | tuple = (),
        **options,
    ) -> Tensors | tuple[Tensors, Tensor]:
        """Return the importance of every input feature, one map an input.

        Captum's conventions hold: Saliency takes absolute values unless `abs=False` (the paper's is signed),
        Gradient SHAP and DeepLiftShap read `baselines` as a distribution that the whole batch shares, and random
        methods draw from the global generators of torch and NumPy.

        Args:
            inputs: `(B, …)`, or a tuple of such tensors when the encoder takes several; for Captum's layer methods
                also integers, such as token ids `(B, T)`.
            baselines: x̄, shaped like the inputs or with 1 as first axis (a distribution: any length), a number, a
                tuple of these for a tuple of inputs, or a function of the inputs. Left out: what Captum assumes.
            weights: w, `(B, D)` or `(D,)`, in place of f(x); a one-hot w explains a single latent unit.
            internal_batch_size: the most rows that may go through the encoder at once. Left out, integrated gradients
                takes as many as fit in some hundred megabytes, and other methods all that they make.
            additional_forward_args: the encoder's further arguments, such as a padding mask; not explained.
            options: what else the Captum method takes: `n_steps`, `n_samples`, `return_convergence_delta`, …

        Returns:
            Maps shaped like the inputs, in single precision for inputs in half; with `return_convergence_delta=True`
            also what their sums exceed g_x(x) − g_x(x̄) by.

        Raises:
            TypeError, ValueError: an encoder in training mode; inputs, baselines, weights or representations that
                are empty, not finite or of the wrong shape; an `internal_batch_size` too small for the method; an
                encoder that draws at random, that passes no gradient to a method that needs one, or that DeepLift
                cannot follow; maps that are not finite.
        """
        checks.evaluating(self.encoder)
        rows = inputs if isinstance(inputs, tuple) else (inputs,)
        size = checks.rows(rows, integers=isinstance(_innermost(self.attribution), LayerAttribution))
        if isinstance(weights, Tensor) and weights.dim() == 1:
            weights = weights.expand(size, -1)
        if weights is not None:
            checks.batch("weights", weights)
        if not isinstance(additional_forward_args, tuple):
            additional_forward_args = (additional_forward_args,)
        if callable(baselines):
            baselines = baselines(inputs)
        drawn = options.get("draw_baseline_from_distrib", False)
        shared = drawn or isinstance(_innermost(self.attribution), GradientShap | DeepLiftShap)
        if baselines is not None:
            checks.baselines(inputs, baselines, shared)
            baselines = _each(baselines, checks.single)
        self._prove(*_cut((rows, additional_forward_args), slice(PROBED), size))

        attribution, step = self.attribution, size
        if internal_batch_size is None and isinstance(attribution, IntegratedGradients):
            internal_batch_size = _affordable(rows)
        if internal_batch_size is not None:
            attribution, options, step = _bounded(attribution, internal_batch_size, baselines, options)
        explain = attribution.attribute
        by_the_rules = options.get("custom_attribution_func") is None
        if isinstance(attribution, DeepLift) and attribution.multiplies_by_inputs and by_the_rules:
            explain = deep_lift.complete(explain, attribution.model)
        if baselines is not None and shared:
            explain = partial(explain, baselines=baselines)
        elif baselines is not None:
            options["baselines"] = baselines

        results, batch = [], (rows, additional_forward_args, weights, options)
        dtypes = tuple(row.dtype for row in rows)
        with _cudnn_aside(self.encoder, rows[0].device), warnings.catch_warnings():
            # Captum announces its hooks at every call; that it takes them off again is tested.
            warnings.filterwarnings("ignore", "Setting (forward, )?backward hooks")
            for start in range(0, size, step):
                part, extra, given, chosen = _cut(batch, slice(start, start + step), size)
                chosen["additional_forward_args"] = (*extra, self._weights(part, extra, given), dtypes)
                part = tuple(checks.single(row).detach().clone() for row in part)
                part = tuple(row.requires_grad_(row.is_floating_point()) for row in part)
                results.append(explain(part if isinstance(inputs, tuple) else part[0], **chosen))
        return _each(_join(results), checks.explained)

    def _prove(self, part: tuple[Tensor, ...], extra: tuple) -> None:
        """Raise unless the method can explain this encoder, by what a few rows show."""
        method = _innermost(self.attribution)
        differentiates = isinstance(method, GradientAttribution) and not isinstance(method, LayerAttribution)
        with _cudnn_aside(self.encoder, part[0].device):
            checks.function(self.encoder, part, extra, gradient=differentiates)
        if isinstance(method, DeepLift):
            deep_lift.once(self.encoder, part, extra)

    def _weights(self, inputs: tuple[Tensor, ...], extra: tuple, given: Tensor | None) -> Tensor:
        """Return w `(B, D)`, f(x) or what was given in its place, taken through the inner product."""
        with torch.no_grad():
            latents = checks.latent(checks.on_copies(self.encoder, *inputs, *extra), len(inputs[0]))
        latents = checks.single(latents)
        weights = latents if given is None else given.to(latents)
        if weights.shape != latents.shape:
            raise ValueError(
                f"weights must have shape (D,) or (B, D), here {tuple(latents.shape)}, got {tuple(weights.shape)}."
            )
        if self.inner is None:
            return weights
        if len(self.inner) != latents.shape[1]:
            raise ValueError(f"inner is {tuple(self.inner.shape)}, but representations have D = {latents.shape[1]}.")
        return weights @ self.inner.to(latents)


def as_published(
    method: Callable[..., Attribution], encoder: Callable[..., Tensor], inputs: Tensor, **options
) -> Tensor:
    """Attribute as the paper's package `lfxai` 0.1.1 pairs x̃ with f(x); only to show what that changes (see errata).

    It keeps f(x) and tiles it as a whole, f(x_1) … f(x_B) f(x_1) …, whatever rows Captum makes. Integrated Gradients
    orders its rows so; Gradient SHAP and noise tunnels make x_1 x_1 … x_2 x_2 …, and in a batch of several inputs
    most rows meet the f(x) of another.

    Args:
        inputs: `(B, …)`; the maps depend on which inputs share the batch.
        options: passed to the Captum method.
    """
    auxiliary = Auxiliary(encoder)
    with torch.no_grad():
        latents = encoder(inputs)

    def tiled(rows: Tensor) -> Tensor:
        return auxiliary(rows, latents.repeat(len(rows) // len(latents), 1), (rows.dtype,))

    with _cudnn_aside(encoder, inputs.device):
        return method(tiled).attribute(inputs.detach().requires_grad_(), **options).detach()


def _innermost(attribution: Attribution) -> Attribution:
    return getattr(attribution, "attribution_method", attribution)


def _affordable(rows: tuple[Tensor, ...]) -> int:
    """Return how many rows go through the encoder at once unless the user says so: what costs memory is their size.

    On a processor more than a few images at once gain no time; a GPU wants many.
    """
    values = AT_ONCE * (16 if rows[0].is_cuda else 1)
    return max(1, min(256, values // sum(row[0].numel() for row in rows)))


def _bounded(attribution: Attribution, bound: int, baselines, options: dict) -> tuple[Attribution, dict, int]:
    """Return attribution, options and how many inputs to take at a time for `bound` rows to be enough."""
    if not isinstance(bound, int) or bound < 1:
        raise ValueError(f"internal_batch_size must be a positive integer, got {bound!r}.")
    if isinstance(attribution, GradientShap):
        # Captum's Gradient SHAP is this noise tunnel, with the tunnel's own batch size out of reach.
        gradients = InputBaselineXGradient(attribution.forward_func, attribution.multiplies_by_inputs)
        attribution, samples = NoiseTunnel(gradients), options.pop("n_samples", 5)
        options = {"stdevs": 0.0, **options, "nt_samples": samples, "draw_baseline_from_distrib": True}
    method, rows = _innermost(attribution), options.get("perturbations_per_eval", 1)
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


def _cudnn_aside(encoder: Callable[..., Tensor], device: torch.device):
    """Return a context without cuDNN where it refuses to differentiate a recurrent layer in evaluation mode."""
    modules = encoder.modules() if isinstance(encoder, nn.Module) else ()
    recurrent = any(isinstance(module, nn.RNNBase) for module in modules)
    return torch.backends.cudnn.flags(enabled=False) if recurrent and device.type == "cuda" else nullcontext()


def _cut(value, part: slice, size: int):
    """Cut each tensor that has a row for each of `size` inputs, however deep it lies; the batch shares all else."""
    if isinstance(value, tuple):
        return tuple(_cut(item, part, size) for item in value)
    if isinstance(value, dict):
        return {name: _cut(item, part, size) for name, item in value.items()}
    return value[part] if isinstance(value, Tensor) and value.dim() and len(value) == size else value


def _each(value, function: Callable[[Tensor], Tensor]):
    """Apply a function to every tensor of a value or of a tuple of them."""
    if isinstance(value, tuple):
        return tuple(_each(item, function) for item in value)
    return function(value) if isinstance(value, Tensor) else value


def _join(results: list):
    """Concatenate equally nested results along the batch, free of their graphs."""
    if isinstance(results[0], tuple):
        return tuple(_join(list(items)) for items in zip(*results, strict=True))
    return torch.cat([result.detach() for result in results])
