"""`RELAX(encoder).attribute(inputs)`: draw masks, encode, and stream what comes back into maps."""

import itertools
import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from lfx_utils import checks
from lfx_utils.progress import tqdm
from lfx_utils.relax.bounds import spent
from lfx_utils.relax.control import Basis, Regression
from lfx_utils.relax.covering import affordable, block, covered, filling, pairs, parts, placed
from lfx_utils.relax.estimators import Moments, Similarity, cosine
from lfx_utils.relax.evidence import Evidence, Tensors
from lfx_utils.relax.masks import Cells, Fill, Masks

RISE = Cells(7, 0.5)
Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])


class RELAX:
    """Explain which parts of an input its representation rests on, by similarity under masking.

    Args:
        encoder: f, any callable from inputs `(B, …)` to representations `(B, D)`, a tensor or a NumPy array; no
            gradient is asked for. With several inputs, as in multi-view models, it is called with all of them.
        masks: `Cells`, `Pixels`, `Blocks` or a function like them.
        similarity: of rows `(R, D)` and `(R, D)`: `cosine`, `dot`, `rbf(width)` or a function of yours.
        fill: what stands where a mask is 0: a number, a tensor that broadcasts with the inputs, `noise(mean, std)`,
            `blur(sigma)` or a function of inputs `(B, …)`, how many and a generator, to `(B or 1, N or 1, …)`.
        dims: the axes that masks run along; all others share them. `(2, 3)` for images `(B, C, H, W)`, `(1,)` for
            sequences `(B, T, C)`.
        dtype: run the encoder in this precision, by autocast, such as `torch.bfloat16`.
        channels_last: hand images to the encoder in that memory format, which convolutions like better.

    Source:
        Wickstrøm et al. 2023, "RELAX: Representation Learning Explainability", Section 3.

    >>> encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5), torch.nn.Sigmoid()).eval()
    >>> maps, uncertainty = RELAX(encoder, Cells(3)).attribute(1 + torch.rand(2, 1, 8, 8), return_uncertainty=True)
    >>> maps.shape, uncertainty.shape
    (torch.Size([2, 1, 8, 8]), torch.Size([2, 1, 8, 8]))
    """

    def __init__(
        self,
        encoder: Callable[..., Tensor | np.ndarray],
        masks: Masks = RISE,
        *,
        similarity: Similarity = cosine,
        fill: float | Tensor | Fill = 0.0,
        dims: tuple[int, ...] = (2, 3),
        dtype: torch.dtype | None = None,
        channels_last: bool = False,
    ):
        if isinstance(fill, int | float) and not math.isfinite(fill):
            raise ValueError(f"fill must be finite, got {fill}.")
        if not dims or dims[0] < 1 or any(second <= first for first, second in itertools.pairwise(dims)):
            raise ValueError(f"dims must be axes in rising order, none of them the first, got {dims}.")
        self.encoder, self.masks, self.similarity, self.fill = encoder, masks, similarity, fill
        self.dims, self.dtype, self.channels_last = dims, dtype, channels_last

    @overload
    def attribute(
        self, inputs: Inputs, *, return_uncertainty: Literal[True], **options: Any
    ) -> tuple[Inputs, Inputs]: ...

    @overload
    def attribute(self, inputs: Inputs, **options: Any) -> Inputs: ...

    def attribute(
        self, inputs: Tensors, *, estimator: str = "ratio", return_uncertainty: bool = False, **options
    ) -> Tensors | tuple[Tensors, Tensors]:
        """Return the importance of each place, one map an input, `(B, 1, H, W)` for images, `(B, T, 1)` for sequences.

        Args:
            inputs: `(B, …)`, or a tuple of such tensors when the encoder takes several; each then has its own masks.
            estimator: "ratio" (Eq. 12), "mean" (Eq. 2), or "control", which needs fewer masks than "ratio".
            return_uncertainty: also return the uncertainty, normalised as Eq. 9 for "mean", else as Algorithm 1.
            options: those of `evidence`: `n_masks`, `internal_batch_size`, `seed`, `tolerance`, …
        """
        if estimator not in ("ratio", "mean", "control"):
            raise ValueError(f"estimator must be 'ratio', 'mean' or 'control', got {estimator!r}.")
        if estimator != "ratio" and options.get("tolerance") is not None:
            raise ValueError(f"tolerance is kept for estimator 'ratio' only, got {estimator!r}.")
        kept = ("control",) if estimator == "control" else ()
        evidence = self.evidence(inputs, **{"keep": kept} | options)
        maps = evidence.importance(estimator)
        return (maps, evidence.uncertainty("mean" if estimator == "mean" else "ratio")) if return_uncertainty else maps

    @torch.no_grad()
    def evidence(
        self,
        inputs: Tensors,
        *,
        n_masks: int = 3_000,
        internal_batch_size: int | None = None,
        seed: int = 0,
        tolerance: float | None = None,
        delta: float = 0.05,
        width: float = 2.0,
        keep: tuple[str, ...] = ("bounds", "control"),
    ) -> Evidence:
        """Return all that the estimators keep of `n_masks` masks, which all inputs of the batch share.

        Args:
            inputs: as in `attribute`.
            n_masks: N; with a tolerance, the most masks.
            internal_batch_size: the most rows that go through the encoder at once; bounds the memory, changes no map.
                Left out, 64, or of inputs larger than photographs as many as have the size of 64 of these.
            seed: of the masks. Runs that are to be joined need different ones.
            tolerance: stop once, with probability 1 − delta for each input, no pixel of "ratio" errs by more.
            delta: see tolerance.
            width: of the interval that the similarities lie in, 0 included: 2 for a cosine, 1 if no representation
                has negative entries.
            keep: what to keep besides importance and its uncertainty, at some cost in time: "bounds" for `half_width`
                and the uncertainty "variance", "control" for the importance "control" where masks are `Cells`.

        Raises:
            TypeError, ValueError: inputs that are no images (or what `dims` says), a grid finer than they are, an
                encoder in training mode or that draws at random, representations that are not finite `(B, D)`, or
                zero under the cosine.
        """
        checks.evaluating(self.encoder)
        views = inputs if isinstance(inputs, tuple) else (inputs,)
        size = checks.rows(views)
        shapes = [self._masked(view) for view in views]
        if not isinstance(n_masks, int) or n_masks < 2:
            raise ValueError(f"n_masks must be at least 2, as one mask tells no pixels apart, got {n_masks!r}.")
        rows = affordable(views) if internal_batch_size is None else internal_batch_size
        if not isinstance(rows, int) or rows < 1:
            raise ValueError(f"internal_batch_size must be a positive integer, got {internal_batch_size!r}.")
        if not set(keep) <= {"bounds", "control"}:
            raise ValueError(f"keep must name 'bounds', 'control' or both, got {keep!r}.")

        checks.function(self._encode, tuple(view[:2] for view in views))
        known = "control" in keep and isinstance(self.masks, Cells)
        bases = tuple(Basis.of(self.masks, shape) for shape in shapes) if known else ()
        bounded = "bounds" in keep or tolerance is not None
        latents = [checks.on_copies(self._encode, *(view[part] for view in views)) for part in parts(size, rows)]
        latents = torch.cat(latents)
        generator = torch.Generator(views[0].device).manual_seed(seed)
        step = block(shapes)
        total, look, next_look = None, 1, 2 * step
        with tqdm(total=n_masks, desc="masks") as bar:
            for count in (part.stop - part.start for part in parts(n_masks, step)):
                masks = [self._draw(count, shape, generator) for shape in shapes]
                fills = [filling(self.fill, view, count, generator) for view in views]
                covers = [placed(mask, view, self.dims) for mask, view in zip(masks, views, strict=True)]
                scores = self._scores(views, latents, covers, fills, rows)
                moments = tuple(Moments.of(scores, mask.to(scores), bounded) for mask in covers)
                regression = Regression.seen(bases, scores, masks) if bases else None
                new = Evidence(moments, regression, bases, isinstance(inputs, tuple))
                total = total + new if total else new
                bar.update(count)
                if tolerance is not None and (total.count >= next_look or total.count == n_masks):
                    # The looks are at numbers of masks fixed beforehand, each with its share of delta.
                    reached = total.error(spent(delta, look), width)
                    if reached <= tolerance:
                        return total
                    look, next_look = look + 1, math.ceil(1.5 * next_look)
        if tolerance is not None:
            warnings.warn(
                f"{n_masks} masks did not reach the tolerance of {tolerance}: the bound on the error is {reached:.3g}.",
                RuntimeWarning,
                stacklevel=2,
            )
        return total

    def _scores(self, views: tuple, latents: Tensor, masks: list[Tensor], fills: list, rows: int) -> Tensor:
        """Return the similarities `(B, N)` of every input to itself under every mask."""
        scores = latents.new_empty(len(latents), len(masks[0]))
        for some, few in pairs(*scores.shape, rows):
            seen = self._encode(*(covered(*each, some, few) for each in zip(views, masks, fills, strict=True)))
            score = self.similarity(latents[some].repeat_interleave(few.stop - few.start, dim=0), seen)
            if score.shape != seen.shape[:1] or not torch.isfinite(score).all():
                came = tuple(score.shape) if score.shape != seen.shape[:1] else "NaN or infinite values"
                raise ValueError(f"similarity must return one finite number a row, {len(seen)} here, got {came}.")
            scores[some, few] = score.view(some.stop - some.start, -1)
        return scores

    def _draw(self, count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        masks = self.masks(count, shape, generator)
        if not isinstance(masks, Tensor) or masks.shape != (count, *shape):
            came = tuple(masks.shape) if isinstance(masks, Tensor) else type(masks).__name__
            raise ValueError(f"masks must return a tensor of shape {(count, *shape)}, got {came}.")
        return masks

    def _encode(self, *views: Tensor) -> Tensor:
        if self.channels_last:
            views = [view.contiguous(memory_format=torch.channels_last) if view.dim() == 4 else view for view in views]
        device = views[0].device.type
        with torch.autocast(device, self.dtype) if self.dtype else nullcontext():
            output = self.encoder(*views)
        if isinstance(output, np.ndarray):
            output = torch.as_tensor(output, device=views[0].device)
        latents = checks.latent(output, len(views[0]))
        return latents if latents.dtype == torch.float64 else latents.float()

    def _masked(self, view: Tensor) -> tuple[int, ...]:
        """Return the sizes of the axes that masks run along."""
        if not len(self.dims) < view.dim() <= len(self.dims) + 2 or max(self.dims) >= view.dim():
            images = self.dims == (2, 3)
            wanted = "be images (B, C, H, W)" if images else f"have the axes dims={self.dims} and at most one other"
            raise ValueError(f"inputs must {wanted}, got shape {tuple(view.shape)}.")
        return tuple(view.shape[dim] for dim in self.dims)
