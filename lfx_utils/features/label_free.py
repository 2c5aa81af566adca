"""Label-free feature importance: any Captum attribution, applied to any encoder.

An encoder f has no single output to explain. Crabbé & van der Schaar (2022) explain a scalar instead: how far the
representation of x̃ points along that of x, g_x(x̃) = ⟨f(x), f(x̃)⟩, at x̃ = x.
"""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, TypeVar, overload

import torch
from captum.attr import (
    Attribution,
    DeepLift,
    DeepLiftShap,
    GradientAttribution,
    GradientShap,
    IntegratedGradients,
    LayerAttribution,
)
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.features import deep_lift
from lfx_utils.features.batches import affordable, bounded, cut, each, innermost, join

Tensors = Tensor | tuple[Tensor, ...]
Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])
Baselines = Tensors | float | Callable | None

PROBED = 2  # Rows on which it is tried whether the encoder is a function.


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
        hooking = innermost(self.attribution)
        if hasattr(hooking, "model") and not isinstance(encoder, nn.Module):
            raise TypeError(
                f"{type(hooking).__name__} hooks the encoder's layers, so encoder must be an nn.Module, "
                f"got {type(encoder).__name__}."
            )

    @overload
    def attribute(
        self, inputs: Inputs, baselines: Baselines = ..., *, return_convergence_delta: Literal[True], **options: Any
    ) -> tuple[Inputs, Tensor]: ...

    @overload
    def attribute(self, inputs: Inputs, baselines: Baselines = ..., **options: Any) -> Inputs: ...

    @torch.inference_mode(False)  # In which nothing could be differentiated, whatever the caller's mode.
    def attribute(
        self,
        inputs: Tensors,
        baselines: Baselines = None,
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
                cannot follow, unless the convergence delta is asked for, which says so; maps that are not finite.
        """
        checks.evaluating(self.encoder)
        rows = inputs if isinstance(inputs, tuple) else (inputs,)
        size = checks.rows(rows, integers=isinstance(innermost(self.attribution), LayerAttribution))
        if isinstance(weights, Tensor) and weights.dim() == 1:
            weights = weights.expand(size, -1)
        if weights is not None:
            checks.batch("weights", weights)
        if not isinstance(additional_forward_args, tuple):
            additional_forward_args = (additional_forward_args,)
        if callable(baselines):
            baselines = baselines(inputs)
        drawn = options.get("draw_baseline_from_distrib", False)
        shared = drawn or isinstance(innermost(self.attribution), GradientShap | DeepLiftShap)
        if baselines is not None:
            checks.baselines(inputs, baselines, shared)
            baselines = each(baselines, checks.single)
        self._prove(*cut((rows, additional_forward_args), slice(PROBED), size))

        attribution, step = self.attribution, size
        if internal_batch_size is None and isinstance(attribution, IntegratedGradients):
            internal_batch_size = affordable(rows)
        if internal_batch_size is not None:
            attribution, options, step = bounded(attribution, internal_batch_size, baselines, options)
        explain = attribution.attribute
        asked = options.get("custom_attribution_func") or options.get("return_convergence_delta")
        if isinstance(attribution, DeepLift) and attribution.multiplies_by_inputs and not asked:
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
                part, extra, given, chosen = cut(batch, slice(start, start + step), size)
                chosen["additional_forward_args"] = (*extra, self._weights(part, extra, given), dtypes)
                part = tuple(checks.single(row).detach().clone() for row in part)
                part = tuple(row.requires_grad_(row.is_floating_point()) for row in part)
                results.append(explain(part if isinstance(inputs, tuple) else part[0], **chosen))
        return each(join(results), checks.explained)

    def _prove(self, part: tuple[Tensor, ...], extra: tuple) -> None:
        """Raise unless the method can explain this encoder, by what a few rows show."""
        method = innermost(self.attribution)
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


def _cudnn_aside(encoder: Callable[..., Tensor], device: torch.device):
    """Return a context without cuDNN where it refuses to differentiate a recurrent layer in evaluation mode."""
    modules = encoder.modules() if isinstance(encoder, nn.Module) else ()
    recurrent = any(isinstance(module, nn.RNNBase) for module in modules)
    return torch.backends.cudnn.flags(enabled=False) if recurrent and device.type == "cuda" else nullcontext()
